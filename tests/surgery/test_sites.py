from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from esper.errors import SiteError
from esper.recipe import Recipe
from esper.surgery.graft import Graft, attach
from esper.surgery.isolation import isolated
from esper.surgery.site import Port, Site
from esper.surgery.sites import SiteMap, SiteRow, discover
from esper.surgery.structure import first_input, first_output
from esper.surgery.trace import trace
from hosts import HOSTS, NUM_EXAMPLES, Host, host


def sites_of(kind: Host) -> SiteMap:
    model = kind.make(0)
    with isolated(model):
        return discover(trace(model, lambda: kind.loss(model, kind.batch(0))))


def sites_in(model: nn.Module, *inputs: object) -> SiteMap:
    return discover(trace(model, lambda: model(*inputs)))


def names(found: SiteMap) -> list[str]:
    return [site.name for site in found.sites]


def row(found: SiteMap, module: str) -> SiteRow:
    return next(row for row in found if row.module == module)


@pytest.mark.parametrize("kind", HOSTS, ids=lambda kind: kind.name)
def test_nine_tenths_of_the_parameters_lie_in_growable_places(kind: Host) -> None:
    found = sites_of(kind)
    print(f"{kind.name}: {found.growable_share:.1%}\n{found}")
    assert found.growable_share >= 0.9
    assert found.params == sum(p.numel() for p in kind.make(0).parameters())
    assert sum(row.params for row in found) == found.params
    assert sum(row.share for row in found) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", HOSTS, ids=lambda kind: kind.name)
def test_ports_describe_the_tensors_that_a_graft_meets(kind: Host) -> None:
    model = kind.make(0)
    with isolated(model):
        found = discover(trace(model, lambda: kind.loss(model, kind.batch(0))))
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
            read, written = first_input(args, kwargs), first_output(output)
            assert written is not None
            outputs.setdefault(name, []).append(written)
            if read is not None:
                inputs.setdefault(name, read)

        return hook

    for name in {end for site in found.offers for end in (site.entry, site.exit)}:
        model.get_submodule(name).register_forward_hook(keep(name), with_kwargs=True)
    kind.loss(model, kind.batch(1))
    for site in found.offers:
        reads = inputs[site.entry] if site.attachment == "beside" else outputs[site.exit][0]
        assert tuple(reads.shape) == site.source.batched(NUM_EXAMPLES)
        assert tuple(outputs[site.exit][0].shape) == site.target.batched(NUM_EXAMPLES)
        assert found.runs[site.name] == len(outputs[site.exit])


def test_a_chain_offers_its_layers_and_spans_of_two_and_on_request_of_three() -> None:
    found = sites_of(host("mlp"))
    assert names(found) == ["0", "2", "0..2", "4", "2..4"]
    assert names(found.select("0..4")) == ["0..4"]
    assert found.sites[2] == Site(
        exit="2", source=Port("vector", (6,)), target=Port("vector", (16,)), entry="0"
    )
    assert found.macs == 400


def test_kinds_of_ports_follow_the_layers() -> None:
    assert sites_of(host("conv1d")).sites[0].source == Port("signal", (2, 10))
    assert sites_of(host("resnet")).sites[0].target == Port("image", (8, 6, 6))
    assert sites_of(host("transformer")).sites[0].source == Port("sequence", (5, 8))
    assert sites_of(host("graph")).sites[0].target == Port("sequence", (5, 10))
    assert sites_of(host("gru_time_first")).sites[0].source == Port("sequence", (5, 4), batch_dim=1)


def test_as_many_steps_as_examples_do_not_confuse_time_first_sequences() -> None:
    model = host("gru_time_first").make(0)
    found = sites_in(model, torch.randn(8, 8, 4))
    assert {site.source.batch_dim for site in found.sites if site.source.kind == "sequence"} == {1}


@pytest.mark.parametrize(("layer", "kind"), [(nn.Conv1d(4, 4, 1), "signal"), (nn.Linear(6, 6), "sequence")])
def test_a_layer_of_unknown_class_is_read_as_its_neighbours_are(layer: nn.Module, kind: str) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 6))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight

    for model, name in ((nn.Sequential(layer, Own()), "1"), (nn.Sequential(Own(), layer), "0")):
        found = sites_in(model, torch.randn(3, 4, 6))
        assert {site.source.kind for site in found.select(name).sites} == {kind}


@pytest.mark.parametrize(("shape", "kind"), [((3, 4, 6), "sequence"), ((3, 2, 4, 6), "image")])
def test_without_a_known_neighbour_three_dimensions_are_a_sequence_and_four_an_image(
    shape: tuple[int, ...], kind: str
) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 6))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.weight)[..., :2]

    assert {site.source.kind for site in sites_in(Own(), torch.randn(shape)).sites} == {kind}


def test_a_convolution_does_not_say_how_the_patches_made_of_its_output_are_laid_out() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 2, stride=2)
            self.positions = nn.Parameter(torch.zeros(4, 6))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).flatten(2).transpose(1, 2) + self.positions

    found = sites_in(nn.Sequential(Patches(), nn.LayerNorm(6), nn.Linear(6, 2)), torch.randn(2, 3, 4, 4))
    assert found.select("0").sites[0].target == Port("sequence", (4, 6))
    assert found.select("0.conv").sites[0].target == Port("image", (6, 2, 2))


def test_a_chain_with_weights_of_its_own_takes_no_child() -> None:
    class Scaled(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(2, 2))
            self.mix = nn.Parameter(torch.ones(2, 2))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) @ self.mix

    found = sites_in(nn.Sequential(Scaled(), nn.Linear(2, 2)), torch.randn(3, 2))
    assert row(found, "0").note == "only by a span, 0.0..1: it takes every child for a layer of its own"
    assert names(found) == ["0.0", "1", "0.0..1"]


def test_embeddings_grow_after_and_only_there() -> None:
    found = sites_of(host("lstm"))
    assert names(found) == ["embed+", "lstm", "head", "lstm..head"]
    assert row(found, "embed").note == "only after it (sequence 7×6): it is given no floating tensor"


def test_a_layer_whose_output_is_not_used_grows_by_spans() -> None:
    found = sites_of(host("gru_time_first"))
    assert names(found) == ["inner", "head", "gru..head"]
    assert row(found, "gru").growable
    assert "only by a span, gru..head: nothing that the model returns depends on" in row(found, "gru").note


def test_norms_count_where_a_span_crosses_them() -> None:
    found = sites_of(host("batchnorm_cnn"))
    assert row(found, "1").growable
    assert row(found, "1").note == "only by a span, 0..3: it only scales features"
    alone = sites_in(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), torch.randn(3, 2))
    assert not row(alone, "1").growable
    assert row(alone, "1").note == "it only scales features"
    assert names(alone) == ["0"]


class Times(nn.Module):
    """One number a feature; ``repeats`` widens the result."""

    def __init__(self, repeats: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.repeats = repeats

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).repeat(1, self.repeats)


def test_a_scale_of_ones_own_is_no_place_but_a_layer_that_widens_is() -> None:
    assert names(sites_in(nn.Sequential(nn.Linear(4, 4), Times(1)), torch.randn(3, 4))) == ["0"]
    assert names(sites_in(nn.Sequential(nn.Linear(4, 4), Times(2)), torch.randn(3, 4))) == ["0", "1", "0..1"]


def test_no_span_joins_different_numbers_of_examples() -> None:
    found = sites_in(Between(Readout(), lambda x: x, lambda y: y.expand(6, 4)), torch.randn(6, 4))
    assert [site.name for site in found.sites if site.is_span] == ["layer..head"]


def test_grafts_that_are_attached_already_are_no_places() -> None:
    model = host("mlp").make(0)
    before = sites_in(model, torch.randn(3, 6))
    body = nn.Linear(6, 16)
    nn.init.zeros_(body.weight)
    attach(model, Graft(body, before.sites[0], Recipe.of("linear")))
    after = sites_in(model, torch.randn(3, 6))
    assert after.rows == before.rows
    assert after.sites == before.sites
    assert after.params == before.params


def test_weights_read_without_a_call_belong_to_their_reader() -> None:
    found = sites_of(host("transformer"))
    note = row(found, "encoder.layers.0.self_attn.out_proj").note
    assert note.startswith("its weights are read by encoder.layers.0.self_attn without a call")
    assert row(found, "encoder.layers.0.self_attn.out_proj").growable


def test_tied_weights_are_counted_once() -> None:
    found = sites_of(host("language_model"))
    assert row(found, "tokens").params == 88
    assert row(found, "head").params == 0
    assert row(found, "head").note.startswith("its weights are counted at another module: sequence 6×8")


def test_tied_weights_are_counted_where_they_are_called() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Embedding(9, 4)
            self.embed, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
            self.embed.weight = self.head.weight = self.shared.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.embed(tokens))

    found = sites_in(Tied(), torch.arange(9)[None])
    assert {r.module: (r.params, r.growable) for r in found} == {
        "shared": (0, False),
        "embed": (36, True),
        "head": (0, True),
    }
    assert row(found, "shared").note == (
        "its weights are counted at another module: never called in the traced batch"
    )
    assert found.growable_share == 1.0


def test_modules_that_are_never_called_say_so() -> None:
    found = sites_of(host("branches"))
    assert row(found, "unused") == SiteRow(
        "unused", "Linear", 8, 8 / 602, False, "never called in the traced batch"
    )


def test_modules_called_several_times_grow_without_spans() -> None:
    found = sites_of(host("shared"))
    assert names(found) == ["inner", "again", "head", "inner..head"]
    assert row(found, "again").note == "vector 12 → vector 12, called 3 times (no spans)"
    assert found.runs["again"] == 3


def test_parametrised_weights_belong_to_their_layer() -> None:
    found = sites_of(host("spectral"))
    assert [row.module for row in found] == ["0", "2"]


def test_frozen_beginnings_do_not_grow_but_what_follows_does() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 5))
    model[0].requires_grad_(False)
    found = sites_in(model, torch.randn(6, 2))
    assert row(found, "0").note == "its output carries no gradient: it is frozen, and so is all before it"
    assert names(found) == ["1", "2", "1..2"]


def test_a_frozen_layer_behind_a_trainable_one_grows() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    model[1].requires_grad_(False)
    assert names(sites_in(model, torch.randn(6, 2))) == ["0", "1", "0..1"]


class Between(nn.Module):
    """A layer between two linear ones, with something done to its input and output."""

    def __init__(
        self, layer: nn.Module, before: Callable[[Tensor], object], after: Callable[..., Tensor]
    ) -> None:
        super().__init__()
        self.first, self.layer, self.head = nn.Linear(4, 4), layer, nn.Linear(4, 4)
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.after(self.layer(self.before(self.first(x)))))


class Listing(nn.Linear):
    """Hides its output in a list of lists."""

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        return [[super().forward(x)]]


class Readout(nn.Module):
    """Sums over the examples."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight).sum(0, keepdim=True)


def _packed(x: Tensor) -> object:
    return nn.utils.rnn.pack_padded_sequence(x.reshape(2, 3, 4), torch.tensor([3, 2]), batch_first=True)


@pytest.mark.parametrize(
    ("layer", "before", "after", "reason"),
    [
        (nn.Linear(4, 4), lambda x: x.view(2, 1, 3, 4), lambda y: y.view(6, 4), "features come last in four"),
        (nn.Conv3d(1, 1, 1), lambda x: x.view(1, 1, 2, 3, 4), lambda y: y.view(6, 4), "have 5 dimensions"),
        (nn.Conv2d(2, 2, 1), lambda x: x.view(2, 3, 4), lambda y: y.view(6, 4), "no batch dimension"),
        (nn.GRU(4, 4), lambda x: x, lambda y: y[0], "no batch dimension"),
        (nn.Linear(4, 4), lambda x: x[0], lambda y: y.expand(6, 4), "no batch dimension"),
        (nn.GRU(4, 4, batch_first=True), _packed, lambda y: y[1][0], "works on packed sequences"),
        (Listing(4, 4), lambda x: x, lambda y: y[0][0], "returns no floating tensor"),
        (Readout(), lambda x: x, lambda y: y.expand(6, 4), "another number of examples"),
        (nn.Linear(4, 4), lambda x: x.view(3, 2, 4), lambda y: y.view(6, 4), "none of its dimensions"),
    ],
)
def test_what_cannot_be_grown_says_why(
    layer: nn.Module, before: Callable[[Tensor], object], after: Callable[..., Tensor], reason: str
) -> None:
    found = sites_in(Between(layer, before, after), torch.randn(6, 4))
    assert reason in row(found, "layer").note
    assert "layer" not in names(found)


def test_nothing_is_offered_after_a_layer_of_packed_sequences() -> None:
    found = sites_in(Between(nn.GRU(4, 4, batch_first=True), _packed, lambda y: y[1][0]), torch.randn(6, 4))
    assert not [site for site in found.offers if "layer" in site.name]


def test_one_module_on_different_layouts_is_left_alone() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x) + self.layer(x[:, None])[:, 0])

    found = sites_in(Model(), torch.randn(6, 4))
    assert row(found, "layer").note == "it is called with different layouts: vector 4, and sequence 1×4"


def test_a_model_that_is_one_layer_can_grow() -> None:
    found = sites_in(nn.Linear(2, 3), torch.randn(4, 2))
    assert found.sites == (Site(exit="", source=Port("vector", (2,)), target=Port("vector", (3,))),)


def test_folded_batches_run_a_graft_more_often() -> None:
    class Folding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.flatten(0, 1))

    assert sites_in(Folding(), torch.randn(3, 5, 4)).runs["layer"] == 5


def test_without_gradients_sites_are_found_and_the_map_says_how() -> None:
    kind = host("branches")
    model = kind.make(0)

    @torch.no_grad()
    def run() -> None:
        kind.loss(model, kind.batch(0))

    found = discover(trace(model, run))
    assert "what feeds what is guessed" in str(found)
    assert "head" in names(found)
    attention = host("transformer")
    other = attention.make(0)

    @torch.no_grad()
    def watch() -> None:
        attention.loss(other, attention.batch(0))

    assert discover(trace(other, watch)).growable_share >= 0.9


def test_a_model_that_calls_nothing_is_refused() -> None:
    with pytest.raises(SiteError, match=r"called none of its modules.*call the very model"):
        discover(trace(nn.Linear(2, 2), lambda: None))


def test_a_wholly_frozen_model_is_refused_with_the_reasons() -> None:
    model = nn.Sequential(nn.Linear(2, 2)).requires_grad_(False)
    with pytest.raises(SiteError, match=r"(?s)no place to grow.*0: its output carries no gradient"):
        sites_in(model, torch.randn(3, 2))


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(SiteError, match="no parameters"):
        sites_in(nn.ReLU(), torch.randn(3, 2))


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("head", ["head"]),
        (["head", "join"], ["join", "head"]),
        (["right"], ["right.0", "right.2"]),
        (["right.?"], ["right.0", "right.2"]),
        (["*"], ["left", "right.0", "right.2", "join", "head", "auxiliary"]),
        (["left..*"], ["left..join", "left..head", "left..auxiliary"]),
        (["right..head"], ["right.2..head"]),
        (["join+", "right+"], ["right.0+", "right.2+", "join+"]),
    ],
)
def test_sites_are_chosen_by_name_and_pattern(patterns: str | list[str], expected: list[str]) -> None:
    found = sites_of(host("branches"))
    assert names(found.select(patterns)) == expected
    assert found.select(patterns).rows == found.rows


def test_an_unknown_name_is_refused_with_near_ones() -> None:
    found = sites_of(host("branches"))
    with pytest.raises(SiteError, match=r"no site matches 'heads'; there are head"):
        found.select(["join", "heads"])
    with pytest.raises(SiteError, match=r"no graft can be placed beside 'unused': never called"):
        found.select("unused")
    with pytest.raises(SiteError, match="no site matches"):
        found.select("head..join")


def test_the_table_is_aligned_and_tells_all() -> None:
    found = sites_of(host("branches"))
    head, *body, summary = str(found).splitlines()
    assert head.split() == ["module", "class", "parameters", "share", "grows", "how,", "or", "why", "not"]
    assert len(body) == len(found) == len(found.rows)
    column = head.index("parameters") + len("parameters")
    assert all(line[column - 1].isdigit() and line[column] == " " for line in body)
    assert summary == (
        "11 sites, of them 5 across several modules; 98.7% of 602 parameters can grow; "
        "544 multiply-adds per example."
    )


def test_notebooks_get_the_same_cells_with_special_characters_escaped() -> None:
    model = nn.ModuleDict({"a<b": nn.Linear(2, 2)})
    found = discover(trace(model, lambda: model["a<b"](torch.ones(3, 2))))
    view = found._repr_html_()
    assert "<td>a&lt;b</td>" in view
    assert view.count("<tr>") == 1 + len(found)
    assert "1 site, of them 0 across several modules" in view


def test_a_module_that_only_a_blocked_span_crosses_says_why_it_cannot_grow() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    seen = trace(model, lambda: model(torch.ones(2, 4)))
    assert row(discover(seen), "1").growable
    blocked = {"0..2": "the forward of the model keeps state"}
    found = discover(seen, blocked=blocked)
    assert not row(found, "1").growable
    why = "and 0..2 across it could not be folded: the forward of the model keeps state"
    assert row(found, "1").note == f"it only scales features, {why}"
    assert not [site for site in found.offers if site.is_span]
    assert found.growable_share < 1.0
    assert "one span is left out" in found.remark
