"""The tap: padding is left out of the rows that it is padding of, and of no others."""

import contextlib
import io

import torch
import transformers
from architectures import ARCHITECTURES, HEADS, HIDDEN, WIDE, tokens
from folders import Folders
from hugging_face import BATCH_MAJOR, Tap, linear_layers
from record import is_linear
from test_tap_rows import SMALL, drawn, fed, llama
from torch import nn
from truth import Truth, check_same, recorded, shards

PADDED = torch.ones(2, 32, dtype=torch.long)
PADDED[0, :9] = 0  # on the left, as for generation
PADDED[1, 25:] = 0  # and on the right
OTHER = torch.ones(2, 32, dtype=torch.long)
OTHER[0, 30:] = 0


def of_padded(name, x):
    return PADDED


def whisper():
    sizes = dict(d_model=HIDDEN, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=WIDE, decoder_ffn_dim=WIDE)
    sizes |= dict(encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, num_mel_bins=8, vocab_size=160)
    sizes |= dict(max_source_positions=32, max_target_positions=64, decoder_start_token_id=1, pad_token_id=0)
    ids = dict(bos_token_id=1, eos_token_id=2, begin_suppress_tokens=None, suppress_tokens=None)
    return transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**sizes, **ids)).eval()


def git():
    sizes = SMALL | dict(num_hidden_layers=2, max_position_embeddings=64)
    image = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    config = transformers.GitConfig(vision_config=image | dict(image_size=32, patch_size=8), **sizes)
    return transformers.GitForCausalLM(config).eval()


def clip():
    """Its image has as many rows as its text."""
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    text = transformers.CLIPTextConfig(vocab_size=160, max_position_embeddings=64, eos_token_id=2, **sizes)
    vision = transformers.CLIPVisionConfig(image_size=40, patch_size=8, **sizes)  # 25 patches and one more
    config = transformers.CLIPConfig.from_text_vision_configs(text, vision, projection_dim=32)
    return transformers.CLIPModel(config).eval()


class Projected(nn.Module):
    """An image is projected beside the text, without any mask of its own, and has as many rows."""

    def __init__(self):
        super().__init__()
        self.tower, self.text = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, inputs_embeds, pixel_values, attention_mask=None):
        return self.tower(pixel_values) + self.text(inputs_embeds)


class Cached(nn.Module):
    """Is given a cache that has more places than rows."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, inputs_embeds, attention_mask=None, past_key_values=None, cache_position=None):
        return self.layer(inputs_embeds)


class Cache:
    def __init__(self, filled):
        self.filled = filled

    def get_seq_length(self):
        return self.filled


class Headed(nn.Module):
    """Its head reads the last tokens alone."""

    def __init__(self):
        super().__init__()
        self.layer, self.lm_head = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, inputs_embeds, attention_mask=None, logits_to_keep=0):
        return self.lm_head(self.layer(inputs_embeds)[:, -logits_to_keep:])


def in_cache(start, rows, width=40):
    """[2, 1, rows, width]: each row sees itself and what came before it, but no padding; the rest
    is empty."""
    key, query = torch.arange(width), start + torch.arange(rows)
    counts = torch.cat([PADDED, torch.ones(2, width - 32, dtype=torch.long)], 1)
    return (key <= query[:, None]) & (counts[:, None, None] == 1)


class TapMasksTests(Folders):
    def __init__(self, daemon):
        super().__init__(daemon, "tap-masks")

    def check(self, model, use, counts, names=None):
        """Recorded by the tap and by the truth, which is told what is padding; returns what the tap
        said."""
        folder, told = self.folder(), io.StringIO()
        with torch.no_grad(), contextlib.redirect_stderr(told), Tap(model, folder):
            truth = Truth(model, is_linear)
            use(model)
            truth.stop()
        check_same(folder, truth, counts, fed(model) if names is None else names)
        return told.getvalue()

    def test_any_type_of_mask(self):
        for dtype in (torch.long, torch.int32, torch.uint8, torch.bool, torch.float32):
            said = self.check(llama(), lambda m, t=dtype: m(drawn(), attention_mask=PADDED.to(t)), of_padded)
            assert not said, said

    def test_positional_mask(self):
        self.check(llama(), lambda m: m(drawn(), PADDED), of_padded)

    def test_mask_without_padding_takes_no_room(self):
        folder = self.folder()
        with torch.no_grad(), Tap(llama_model := llama(), folder):
            llama_model(drawn(), attention_mask=torch.ones(2, 32))
        (shard,) = shards(folder)
        assert b"::mask" not in shard.read_bytes()

    def test_rows_without_their_sequences(self):
        """OPT's feed-forward reads [batch * seq, features]; its projections are beside the
        blocks."""
        self.check(ARCHITECTURES["opt"].make(), lambda m: m(drawn(), attention_mask=PADDED), of_padded)

    def test_generation_from_padded_prompts(self):
        """The cache: of each step the newest token counts."""
        prompt, mask = drawn()[:, :12], PADDED[:, :12]
        options = dict(max_new_tokens=4, min_new_tokens=4, do_sample=False)

        def counts(name, x):
            return mask if x.shape[1] == 12 else torch.ones(x.shape[:2])

        self.check(llama(), lambda m: m.generate(prompt, attention_mask=mask, **options), counts)

    def encoder_decoder(self, name, decoder_mask, batches):
        """Recorded of batches whose decoder has so many tokens each."""

        def counts(layer, x):
            if layer.startswith(("encoder.", "model.encoder.")):
                return PADDED
            cross = ("EncDecAttention.k", "EncDecAttention.v", "encoder_attn.k_proj", "encoder_attn.v_proj")
            return PADDED if layer.endswith(cross) else decoder_mask if decoder_mask is None else cut(x.shape[1])

        def cut(length):
            return None if decoder_mask is None else decoder_mask[:, -length:]

        def use(model):
            for length in batches:
                decoder = dict(decoder_input_ids=drawn(seed=length)[:, :length], decoder_attention_mask=cut(length))
                model(input_ids=drawn(), attention_mask=PADDED, **decoder)

        model = ARCHITECTURES[name].make()
        left = ("EncDecAttention.o", "encoder_attn.out_proj") if batches == [32] else ()
        self.check(model, use, counts, {name for name in fed(model) if not name.endswith(left)})

    def test_an_encoders_mask_is_of_what_the_encoder_made(self):
        """Of its own rows and of keys and values of the attention to them. What comes of that
        attention is in doubt while both sequences are of one length, and there was none in which
        they are not."""
        for name in ("t5", "bart"):
            for decoder_mask in (None, OTHER):
                for batches in ([32], [20, 32]):
                    self.encoder_decoder(name, decoder_mask, batches)

    def test_untied_head_of_an_encoder_decoder(self):
        sizes = dict(vocab_size=160, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4)
        config = transformers.T5Config(**sizes, tie_word_embeddings=False)
        model = transformers.T5ForConditionalGeneration(config).eval()
        rows = []
        for length, more in ((32, {}), (20, {}), (20, dict(decoder_attention_mask=PADDED[:, :20]))):
            given = dict(input_ids=drawn(), attention_mask=PADDED, decoder_input_ids=drawn(seed=4)[:, :length])
            folder = self.folder()
            with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()), Tap(model, folder):
                model(**given, **more)
            rows.append(len(recorded(folder).get("lm_head", ())))
        assert rows == [0, 40, 0], f"only where its rows cannot be those of a mask: {rows}"

    def test_whisper(self):
        """Its mask is of the sound before it is folded into half as many rows, all of which the
        encoder reads."""
        given = dict(input_features=torch.randn(2, 8, 64), attention_mask=torch.ones(2, 64, dtype=torch.long))
        given["attention_mask"][0, 40:] = 0
        mask = OTHER[:, 1:]
        given |= dict(decoder_input_ids=drawn()[:, 1:], decoder_attention_mask=mask)
        model = whisper()

        def counts(name, x):
            of_sound = name.endswith(("encoder_attn.k_proj", "encoder_attn.v_proj"))
            return mask if name.startswith("model.decoder.") and not of_sound else None

        self.check(model, lambda m: m(**given), counts, {name for name in fed(model) if name != "proj_out"})

    def test_an_image_in_front_of_text_is_kept(self):
        """GIT: 17 rows of image, then the text, whose mask is [batch, text]. Its head is outside of
        what knows that."""

        def counts(name, x):
            if not name.startswith("git.encoder."):
                return None
            return torch.cat([torch.ones(2, 17), PADDED], 1)

        given = dict(input_ids=drawn(), attention_mask=PADDED, pixel_values=torch.randn(2, 3, 32, 32))
        model = git()
        self.check(model, lambda m: m(**given), counts, fed(model) - {"output"})

    def test_two_towers_of_one_length(self):
        given = dict(input_ids=drawn()[:, :26], attention_mask=PADDED[:, :26], pixel_values=torch.randn(2, 3, 40, 40))
        model = clip()

        def counts(name, x):
            return PADDED[:, :26] if name.startswith("text_model.") else None

        self.check(model, lambda m: m(**given), counts)

    def test_an_image_that_is_projected_has_no_mask(self):
        given = dict(inputs_embeds=torch.randn(2, 32, 8), pixel_values=torch.randn(2, 32, 8), attention_mask=PADDED)
        self.check(Projected(), lambda m: m(**given), lambda name, x: PADDED if name == "text" else None)

    def test_additive_masks(self):
        """[batch, 1, 1, keys] and [batch, 1, queries, keys], as BERT's parts take them."""
        model = ARCHITECTURES["bert"].make()
        x, least = torch.randn(2, 32, HIDDEN), torch.finfo(torch.float32).min
        flat = (1.0 - PADDED[:, None, None].float()) * least
        causal = flat + torch.triu(torch.full((32, 32), -10000.0), 1)
        names = {name for name in fed(model) if name.startswith("encoder.")}
        for mask in (flat, causal.clamp(min=least)):
            said = self.check(model, lambda m: m.encoder(x, attention_mask=mask), of_padded, names)
            assert "doubt" not in said and "pooler.dense" in said, said

    def test_a_mask_of_each_query(self):
        """[batch, queries, keys] of 0 and 1: a token that no other may see is padding."""
        seen = (PADDED[:, None] * torch.ones(32, 1, dtype=torch.long)).float()
        model = ARCHITECTURES["bert"].make()

        def counts(name, x):
            return PADDED if x.dim() == 3 else None  # the pooler reads the first token alone

        self.check(model, lambda m: m(drawn(), attention_mask=seen), counts)

    def test_a_mask_that_does_not_tell_is_left_out_with_a_word(self):
        class Own(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x, attention_mask):
                return self.layer(x)

        x, model = torch.randn(2, 32, 8), Own()
        masks = [PADDED[:, None, None].bool(), PADDED[:, :20], 1 + PADDED, (PADDED - 1) * 1000.0, "padding"]
        for mask in masks:
            said = self.check(model, lambda m: [m(x, mask), m(x + 1, mask)], lambda name, x: None, set())
            assert said.count("does not tell") == 1, said
        for mask in (PADDED.numpy(), PADDED.tolist(), (PADDED - 1) * 10000.0):
            said = self.check(model, lambda m: m(x, mask), of_padded)
            assert not said, said

    def test_a_cache_that_is_not_full(self):
        """Masks as wide as the cache: the rows go to the places that are said, and not to the
        last."""
        x, step, lowest = torch.randn(2, 32, 8), torch.randn(2, 1, 8), torch.finfo(torch.float32).min
        first, then = in_cache(0, 32), in_cache(32, 1)
        counts = lambda name, x: PADDED if x.shape[1] == 32 else None
        for form in (lambda m: m, lambda m: m.float(), lambda m: torch.where(m, 0.0, lowest)):
            use = lambda m: [m(x, form(first), Cache(0)), m(step, form(then), Cache(torch.tensor(32)))]
            assert not (said := self.check(Cached(), use, counts)), said
            use = lambda m: [
                m(x, form(first), (), torch.arange(32)),
                m(step, {"full_attention": form(then)}, (), torch.tensor([32])),
            ]
            assert not (said := self.check(Cached(), use, counts)), said
            doubtful = [
                lambda m: m(x, form(first), ()),  # nobody says where
                lambda m: m(step, form(then), Cache(30)),  # or says it wrong
                lambda m: m(x, form(first), Cache(9)),
                lambda m: m(step, form(then), (), torch.tensor([40])),
                lambda m: m(x[:, :3], form(in_cache(20, 5)[:, :, ::2]), (), torch.arange(20, 25, 2)),
                lambda m: m(x, form(~first), Cache(0)),
            ]
            for use in doubtful:
                said = self.check(Cached(), use, counts, set())
                assert said.count("does not tell") == 1, said
        for rows in (1, 3):  # a window of 4 that has moved to where the second has padding
            start = 26 - rows
            mask = in_cache(start, rows)[..., start - 3 : start + rows]
            counts_now = lambda name, x, rows=rows, start=start: PADDED[:, start : start + rows]
            assert not self.check(Cached(), lambda m: m(x[:, :rows], mask, Cache(start)), counts_now)
        flat = torch.cat([PADDED, torch.zeros(2, 8, dtype=torch.long)], 1)
        assert "does not tell" in self.check(Cached(), lambda m: m(x, flat, Cache(0)), counts, set())
        assert not self.check(Cached(), lambda m: m(x, flat.flip(1), Cache(8)), lambda n, x: PADDED.flip(1))

    def test_a_mask_for_each_kind_of_layers(self):
        x, none = torch.randn(2, 32, 8), dict(full_attention=None, sliding_attention=None)
        assert not self.check(Cached(), lambda m: m(x, none), lambda name, x: None)
        window = dict(sliding_attention=in_cache(0, 32, 32))
        assert not self.check(Cached(), lambda m: m(x, none | window), lambda name, x: None)  # as Transformers has it
        said = self.check(Cached(), lambda m: m(x, window), of_padded, set())
        assert "does not tell" in said, said

    def test_masks_in_which_padding_sees_something(self):
        """Itself, or all: which rows are padding is no more told by what is seen."""
        x, causal = torch.randn(2, 32, 8), in_cache(0, 32, 32)
        assert not self.check(Cached(), lambda m: m(x, causal), of_padded)
        image = causal.clone()
        image[..., 10:16, 10:16] = True  # which sees all of itself
        for mask in (image, image.float()):
            assert not self.check(Cached(), lambda m: m(x, mask), of_padded)
        window = torch.ones(32, 32, dtype=torch.bool).tril().triu(-3).expand(2, 1, 32, 32)
        assert not self.check(Cached(), lambda m: m(x, window), lambda name, x: None)
        for mask in (~image, ~causal, ~window):
            assert "does not tell" in self.check(Cached(), lambda m: m(x, mask), of_padded, set())
        itself = causal | torch.eye(32, dtype=torch.bool)
        everything = causal | ~causal.any(-1, keepdim=True)
        for mask in (itself, everything, itself.float(), everything.float()):
            assert "does not tell" in self.check(Cached(), lambda m: m(x, mask), of_padded, set())

    def test_a_head_of_the_last_tokens(self):
        x, counts = torch.randn(2, 32, 8), lambda name, x: PADDED[:, -x.shape[1] :]
        for keep in (1, 10):
            use = lambda m: [m(inputs_embeds=x, attention_mask=PADDED, logits_to_keep=keep), m(x + 1, PADDED)]
            said = self.check(Headed(), use, counts, {"layer", "lm_head"})
            assert not said, said

    def test_a_layer_of_which_all_rows_are_padding(self):
        mask = torch.zeros(2, 32, dtype=torch.long)
        said = self.check(Cached(), lambda m: [m(torch.randn(2, 32, 8), mask) for _ in range(2)], of_padded, set())
        assert said.count("all of its rows are padding by the mask") == 1, said

    def test_square_batches_of_known_families(self):
        """As many sequences as tokens: in these families no layer reads [length, batch]."""
        mask = torch.ones(32, 32, dtype=torch.long)
        mask[0, 9:] = mask[5, :3] = 0
        known = [name for name in ARCHITECTURES if name in BATCH_MAJOR and name != "mixtral"]
        assert len(known) > 12, known
        for name in known:
            given = dict(input_ids=drawn(32), attention_mask=mask)
            is_pair = ARCHITECTURES[name].task_type == "SEQ_2_SEQ_LM"
            given |= dict(decoder_input_ids=drawn(32)[:, :3]) if is_pair else {}
            counts = lambda name, x: mask if x.shape[:2] == (32, 32) or len(x) == 1024 else None
            model = ARCHITECTURES[name].make()
            said = self.check(model, lambda m: m(**given), counts, set(linear_layers(model, model, {})))
            assert "doubt" not in said, said

    def test_unequal_shards_of_one_model(self):
        """A padded call, and one that is not: what was said of one is not held against the
        other."""
        given = [dict(input_ids=drawn(), attention_mask=PADDED), dict(input_ids=tokens(2, torch.Generator()))]
        masks = [PADDED, None]
        model, seen = llama(), []

        def counts(name, x):
            seen.append(name)
            return masks[(seen.count(name) - 1) % 2]

        self.check(model, lambda m: [m(**one) for one in given], counts)
