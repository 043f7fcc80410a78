"""What each probe makes of features, and what it keeps of the training features."""

from dataclasses import replace

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from synthdetect.models.networks import build
from synthdetect.models.probes import LinearProbe, MlpProbe, NeighbourProbe, Probe
from synthdetect.models.spec import PROBES, ModelSpec
from synthdetect.system.errors import UserError

SPEC = replace(ModelSpec.of("resnet18_layer2", 32), neighbours=5, hidden=16)
FEATURES = 6


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    """Features of very different size, of which one goes with the label and one is constant."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    features = torch.randn(40, FEATURES, generator=generator)
    features[:, 0] += 2 * labels
    features[:, 5] = 3.0
    return features * torch.tensor([1e-3, 1, 1e3, 1, 1, 1]), labels


@pytest.mark.parametrize("kind", [LinearProbe, MlpProbe])
def test_a_learning_probe_sees_features_of_mean_0_and_variance_1(
    kind: type[Probe], data: tuple[Tensor, Tensor]
) -> None:
    features, labels = data
    probe = kind(FEATURES, SPEC).eval()
    probe.fit(features, labels)
    seen: list[Tensor] = []
    probe.layers.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    assert probe(features).shape == (40, 1)
    torch.testing.assert_close(seen[0].mean(0), torch.zeros(FEATURES), atol=1e-4, rtol=0)
    wanted = torch.tensor([1.0, 1, 1, 1, 1, 0])
    torch.testing.assert_close(seen[0].std(0), wanted, atol=1e-4, rtol=0)


def test_neighbours_vote_as_those_of_scikit_learn(data: tuple[Tensor, Tensor]) -> None:
    features, labels = data
    probe = NeighbourProbe(FEATURES, SPEC).eval()
    probe.fit(features[:30], labels[:30])

    def weights(distances: object) -> object:
        return torch.exp((1 - torch.as_tensor(distances)) / 0.07).numpy()

    peer = KNeighborsClassifier(5, metric="cosine", weights=weights)
    peer.fit(features[:30].double().numpy(), labels[:30].numpy())
    share = torch.from_numpy(peer.predict_proba(features[30:].double().numpy())[:, 1])
    wanted = torch.log((5 * share + 0.5) / (5 * (1 - share) + 0.5))
    found = probe(features[30:])[:, 0]
    assert found.std() > 0.1
    torch.testing.assert_close(found.double(), wanted, atol=1e-3, rtol=1e-3)


def test_an_image_does_not_vote_for_itself_in_training(data: tuple[Tensor, Tensor]) -> None:
    features, labels = data
    probe = NeighbourProbe(FEATURES, SPEC)
    probe.fit(features, labels)
    of_training = probe.train()(features)
    for row in range(5):
        others = torch.arange(40) != row
        probe.eval().fit(features[others], labels[others])
        torch.testing.assert_close(probe(features[row : row + 1]), of_training[row : row + 1])


def test_too_few_images_for_the_neighbours_are_refused(data: tuple[Tensor, Tensor]) -> None:
    features, labels = data
    with pytest.raises(UserError, match=r"--neighbours 5: there are only 5"):
        NeighbourProbe(FEATURES, SPEC).fit(features[:5], labels[:5])


@pytest.mark.parametrize("probe", PROBES)
def test_a_network_with_a_probe_gives_one_logit_from_images_or_their_features(probe: str) -> None:
    torch.manual_seed(0)
    spec = replace(SPEC, probe=probe)
    network = build(spec).eval()
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    head = network.head
    assert isinstance(head, Probe)
    head.fit(torch.randn(20, network.features), torch.arange(20) % 2)
    with torch.inference_mode():
        logits = network(images)
        outputs, features = network.with_features(images)
        again = network(features)
    assert (logits.shape, features.shape) == ((8,), (8, 128))
    assert torch.equal(outputs[:, 0], logits)
    torch.testing.assert_close(again, logits)
    # Another network takes its state, however many images it remembers.
    other = build(spec).eval()
    other.load_state_dict(network.state_dict())
    with torch.inference_mode():
        assert torch.equal(other(images), network(images))


def test_a_state_that_remembers_too_few_images_does_not_fit() -> None:
    network = build(replace(SPEC, probe="knn"))
    state = network.state_dict() | {
        "backbone.fc.memory": torch.zeros(3, 128), "backbone.fc.labels": torch.zeros(3),
    }  # fmt: skip
    with pytest.raises(RuntimeError, match="size mismatch"):
        network.load_state_dict(state)


def test_the_frozen_backbone_is_the_same_whatever_the_probe() -> None:
    def body(probe: str) -> dict[str, Tensor]:
        torch.manual_seed(3)
        state = build(replace(SPEC, probe=probe)).state_dict()
        return {k: v for k, v in state.items() if not k.startswith("backbone.fc.")}

    whole = body("none")
    for probe in PROBES:
        assert all(torch.equal(value, whole[name]) for name, value in body(probe).items())
