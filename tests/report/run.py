"""Pages of real runs in a browser: no script error, every layer present, readable at two widths in
both colour schemes.

Ends with "report: N passed, M failed"."""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import traceback

from playwright.sync_api import sync_playwright

import checks

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "fixtures/model"
WIDTHS, SCHEMES = [1280, 400], ["light", "dark"]
HEIGHT = 900
PICTURES = {"light": ROOT / "docs/report.png", "dark": ROOT / "docs/report-dark.png"}
# Names that would be markup if nobody escaped them.
HOSTILE = ["h.0.<script>alert(1)</script>", 'h.0."><img src=x onerror=alert(1)>', "h.0." + "long" * 60]


def corrected(binary, folder, *more):
    """The fixture's model, corrected from half of its shards and then from all: two generations."""
    shards = sorted((ROOT / "fixtures/activations").iterdir())
    watched, out = folder / "activations", folder / "out"
    watched.mkdir(parents=True)
    for end in (len(shards) // 2, len(shards)):
        for shard in shards[:end]:
            shutil.copy(shard, watched)
        options = ["--watch", watched, "--checkpoint", MODEL, "--out", out, "--quantizer", "mxint3", "--rank", "8"]
        subprocess.run([binary, "--once", *options, *more], check=True, stderr=subprocess.DEVNULL)
    return out


def hostile(folder):
    """An output folder whose manifest, of a program that sealed none, has names of files of
    others."""
    generation = folder / "generations/000001"
    generation.mkdir(parents=True)
    error = {"relative_without": 0.2, "relative_with": 0.1}
    layers = [
        {"name": name, "status": "solved", "rank_asked": 8, "rank_used": 8, "quantizer": name, "error": error}
        for name in HOSTILE
    ]
    manifest = {"manifest_version": 4, "layers": layers, "settings": {"method": HOSTILE[0]}}
    (generation / "qera_manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "current").symlink_to("generations/000001")
    return folder


def report(binary, out, file):
    subprocess.run([binary, "report", "--out", out, "--html", file], check=True, stdout=subprocess.DEVNULL)
    names = [layer["name"] for layer in json.loads((out / "current/qera_manifest.json").read_text())["layers"]]
    return checks.ReportPage(file, names)


def opened(browser, page, width, scheme):
    """The page in a window, with everything that it says, asks for or does wrong."""
    context = browser.new_context(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
    view = context.new_page()
    heard = []
    view.on("console", lambda message: heard.append(f"console: {message.text}"))
    view.on("pageerror", lambda error: heard.append(f"error: {error}"))
    view.on("dialog", lambda dialog: (heard.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    view.on("request", lambda request: request.url.startswith("file:") or heard.append(f"request: {request.url}"))
    view.goto(page.file.as_uri())
    return view, heard


def test(browser, pages):
    passed, failed = 0, 0
    for name, page in pages.items():
        for width in WIDTHS:
            for scheme in SCHEMES:
                try:
                    view, heard = opened(browser, page, width, scheme)
                    checks.check(view, page, width, scheme)
                    assert not heard, heard
                    view.context.close()
                except Exception:
                    traceback.print_exc()
                    failed += 1
                else:
                    print(f"ok report: {name} at {width} pixels, {scheme}")
                    passed += 1
    print(f"report: {passed} passed, {failed} failed")
    return failed


def write_pictures(browser, page):
    for scheme, picture in PICTURES.items():
        view, _ = opened(browser, page, WIDTHS[0], scheme)
        view.screenshot(path=picture)
        print(f"{picture}: {picture.stat().st_size // 1000} kB")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--daemon", required=True)
    parser.add_argument("--write-picture", action="store_true", help="write the pictures of docs, and exit")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, sync_playwright() as driver:
        work = pathlib.Path(work)
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        projected = corrected(arguments.daemon, work / "projected", "--rounding", "projected")
        pages = {"projected": report(arguments.daemon, projected, work / "projected.html")}
        if arguments.write_picture:
            write_pictures(browser, pages["projected"])
            return 0
        nearest = corrected(arguments.daemon, work / "nearest")
        pages["nearest"] = report(arguments.daemon, nearest, work / "nearest.html")
        pages["hostile"] = report(arguments.daemon, hostile(work / "hostile"), work / "hostile.html")
        return 1 if test(browser, pages) else 0


if __name__ == "__main__":
    sys.exit(main())
