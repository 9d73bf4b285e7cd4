"""The tap: a layer whose rows may be padding, or may not, is left out of a shard; it is neither
recorded nor masked."""

import contextlib
import io

import torch
import transformers
from folders import Folders
from hugging_face import Tap
from record import is_linear
from test_tap_masks import OTHER, PADDED
from test_tap_rows import SMALL, drawn
from torch import nn
from truth import Truth, check_same, recorded, shards

TINY = dict(vocab_size=160, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
SIDES = dict(encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2)
SIDES |= dict(encoder_ffn_dim=16, decoder_ffn_dim=16, d_model=16)


def of_padded(name, x):
    return PADDED if x.shape[0] in (2, 64) else None


class TimeMajor(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x, attention_mask=None):
        return self.layer(x.transpose(0, 1)), self.seen(x)


class OneMask(nn.Module):
    """A part that is given no mask, within a model that is."""

    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, hidden_states, attention_mask=None, band_mask=None):
            return self.layer(hidden_states)

    def __init__(self):
        super().__init__()
        self.part, self.own = self.Part(), nn.Linear(8, 8)

    def forward(self, x, attention_mask=None, band=False):
        return self.own(self.part(x, band_mask=attention_mask if band else None))


class Latents(nn.Module):
    """Layers over rows of their own, which are as many as the tokens in some calls."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, inputs_embeds, attention_mask=None):
        return self.layer(inputs_embeds), self.layer(torch.ones(1, 16, 8))


class TapDoubtTests(Folders):
    def __init__(self, daemon):
        super().__init__(daemon, "tap-doubt")

    def check(self, model, use, left, counts=of_padded):
        """All layers that are given rows are recorded as the truth has it, but for those that are
        left."""
        folder, told = self.folder(), io.StringIO()
        with torch.no_grad(), contextlib.redirect_stderr(told), Tap(model.eval(), folder) as tap:
            truth = Truth(model, is_linear)
            use(model)
            truth.stop()
        names = truth.fed() - tap.left_out.keys()
        doubtful = {name for name, why in tap.left_out.items() if "doubt" in why}
        assert left(doubtful, truth.fed()), sorted(doubtful)
        check_same(folder, truth, counts, names)
        assert told.getvalue().count("in doubt") == bool(doubtful), told.getvalue()
        return folder

    def named(self, *parts):
        """Whether the layers in doubt are those with one of these in their names."""
        return lambda doubtful, fed: doubtful == {name for name in fed if any(part in name for part in parts)}

    def test_experts(self):
        """Whatever number of tokens they are given: all in any order, too."""
        for experts in (2, 3):
            sizes = dict(num_key_value_heads=2, num_local_experts=experts, num_experts_per_tok=2)
            model = transformers.MixtralForCausalLM(transformers.MixtralConfig(**TINY, **sizes))
            self.check(model, lambda m: m(drawn(), attention_mask=PADDED), self.named("experts"))

    def test_time_major_layers(self):
        """FSMT's encoder, and its attention to it."""
        sizes = dict(langs=["a", "b"], src_vocab_size=160, tgt_vocab_size=160)
        model = transformers.FSMTForConditionalGeneration(transformers.FSMTConfig(**sizes, **SIDES))
        for batch in (5, 32):
            mask = torch.ones(batch, 32, dtype=torch.long)
            mask[0, 9:] = 0
            given = dict(input_ids=drawn(batch), attention_mask=mask, decoder_input_ids=drawn(batch)[:, :3])
            left = self.named("model.encoder", "encoder_attn.k_proj", "encoder_attn.v_proj")
            self.check(model, lambda m: m(**given), left, lambda name, x: None)

    def test_square_batches(self):
        """Nothing tells rows from columns, but what was seen before."""
        square, mask = torch.randn(6, 6, 8), torch.ones(6, 6, dtype=torch.long)
        mask[0, 2:] = 0
        self.check(TimeMajor(), lambda m: m(square, mask), self.named("layer", "seen"))
        wide = torch.ones(2, 6, dtype=torch.long)
        folder = self.check_first(TimeMajor(), lambda m: [m(square[:2], wide), m(square, mask)])
        rows = {name: len(x) for name, x in recorded(folder).items()}
        assert rows == {"seen": 12 + int(mask.sum()), "layer": 12}, rows

    def test_a_part_that_is_given_no_mask(self):
        """It is padded where its own mask has another name. Else nobody knows."""
        x = torch.randn(2, 32, 8)
        self.check(OneMask(), lambda m: m(x, PADDED, band=True), self.named("-"))
        self.check(OneMask(), lambda m: m(x, PADDED), self.named("part"))

    def test_a_mask_of_another_name(self):
        """Some classes have 1 where there is padding, some 0."""

        class Own(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x, padding_mask, attention_mask=None):
                return self.layer(x)

        x, folder = torch.randn(2, 32, 8), self.folder()
        masks = (PADDED, 1 - PADDED, torch.zeros(2, 32), torch.ones(2, 32, dtype=torch.bool))
        with contextlib.redirect_stderr(io.StringIO()), Tap(model := Own(), folder) as tap:
            [model(x + number, mask) for number, mask in enumerate(masks)]
        assert tap.shards == 2 and len(recorded(folder)["layer"]) == 128, tap.left_out

    def test_block_attention(self):
        """BigBird: masks of other names; a length that is no multiple of the block is padded by the
        model itself."""
        sizes = dict(attention_type="block_sparse", block_size=8, num_random_blocks=1, max_position_embeddings=256)
        model = transformers.BigBirdModel(transformers.BigBirdConfig(**TINY, **sizes))
        for length, left in ((96, "-"), (90, "encoder")):
            mask = torch.ones(2, length, dtype=torch.long)
            mask[0, 60:] = 0
            tokens = drawn().repeat(1, 3)[:, :length]
            counts = lambda name, x, mask=mask: mask if x.dim() == 3 else None
            self.check(model, lambda m: m(tokens, attention_mask=mask), self.named(left), counts)

    def test_windows_and_global_tokens(self):
        sizes = dict(attention_window=[8], max_position_embeddings=64, pad_token_id=1)
        model = transformers.LongformerForSequenceClassification(transformers.LongformerConfig(**TINY, **sizes))
        use = lambda m: m(drawn(), attention_mask=PADDED)
        self.check(model, use, self.named("encoder"), lambda name, x: None)

    def test_positions_that_are_as_many_as_tokens(self):
        """DeBERTa's, in a batch of one sequence."""
        sizes = dict(relative_attention=True, position_buckets=16, share_att_key=True, pos_att_type=["p2c", "c2p"])
        sizes |= dict(max_position_embeddings=64, norm_rel_ebd="layer_norm", position_biased_input=False)
        model = transformers.DebertaV2Model(transformers.DebertaV2Config(**TINY, **sizes))
        use = lambda m: m(drawn(1), attention_mask=PADDED[1:])
        self.check(model, use, self.named("query_proj", "key_proj"), lambda name, x: PADDED[1:])

    def test_rows_of_another_shape_are_remembered(self):
        tokens, mask = torch.randn(1, 16, 8), torch.ones(1, 16, dtype=torch.long)
        mask[0, 4:] = 0
        use = lambda m: [m(tokens[:, :12]), m(tokens, mask)]
        folder = self.check_first(Latents(), use)
        assert len(shards(folder)) == 1, "the second call is in doubt"

    def check_first(self, model, use):
        folder = self.folder()
        with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()), Tap(model, folder):
            use(model)
        return folder

    def test_latents(self):
        sizes = dict(num_latents=4, d_latents=16, d_model=16, num_blocks=1, num_self_attends_per_block=1)
        sizes |= dict(num_self_attention_heads=2, num_cross_attention_heads=2, qk_channels=16, v_channels=16)
        config = transformers.PerceiverConfig(**sizes, vocab_size=160, max_position_embeddings=32)
        use = lambda m: m(drawn(), attention_mask=PADDED)
        left = self.named("perceiver.encoder", "self.key", "self.value")  # the decoder's queries are given the mask
        self.check(transformers.PerceiverForMaskedLM(config), use, left)

    def test_keys_with_positions_added(self):
        """DETR's decoder reads the encoder's rows, whose mask has another name outside, and adds to
        them."""
        sizes = dict(num_queries=5, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None)
        stages = dict(embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic")
        backbone = transformers.ResNetConfig(**stages, out_features=["stage4"])
        model = transformers.DetrModel(transformers.DetrConfig(**sizes, **SIDES, backbone_config=backbone))
        seen = torch.ones(2, 128, 128, dtype=torch.long)
        seen[0, :, 64:] = 0
        patches = seen[:, ::32, ::32].reshape(2, 16)
        use = lambda m: m(torch.randn(2, 3, 128, 128), pixel_mask=seen)
        counts = lambda name, x: patches if x.shape[1] == 16 else None
        self.check(model, use, self.named("-"), counts)

    def test_heads_of_several_streams(self):
        """A decoder's padding is not recorded of a layer that is beside it."""
        sizes = dict(vocab_size=160, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4)
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, tie_word_embeddings=False))
        given = dict(input_ids=drawn()[:, :20], decoder_input_ids=drawn(seed=4), decoder_attention_mask=OTHER)
        counts = lambda name, x: OTHER if name.startswith("decoder") and x.shape[1] == 32 else None
        self.check(model, lambda m: m(**given), self.named("lm_head"), counts)

    def test_a_call_without_padding_records_all(self):
        sizes = SMALL | dict(num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=2)
        model = transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes))
        use = lambda m: m(drawn(), attention_mask=torch.ones_like(PADDED))
        self.check(model, use, self.named("-"), lambda name, x: None)
