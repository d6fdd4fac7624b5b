import pytest
import timm
import torch

from flatten_dense.backbones import TimmBackbone, TimmClassifier, load_weights

# Lists of modules with and without containers, a class of its own, a getter.
MODELS = [
    ("resnet18", {}),
    ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 1, 1)}),
    ("convnext_atto", {}),
    ("mobilenetv3_small_050", {}),
    ("vit_tiny_patch16_224", {"depth": 3}),
]


@pytest.fixture
def save(tmp_path):
    def write(model, prefix=""):
        torch.save({prefix + name: tensor for name, tensor in model.state_dict().items()}, tmp_path / "source.pth")
        return str(tmp_path / "source.pth")

    return write


def warm(model):
    """Give the norms statistics of their own."""
    torch.manual_seed(1)
    model.train()(torch.randn(2, 3, 224, 224))
    return model.eval()


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_a_classifier_fills_the_backbone_of_its_name(save, name, options):
    source = warm(TimmClassifier(name, options=options))
    chosen = {"out_indices": (2,)} if name.startswith("vit") else {}
    maps = TimmBackbone(name, options=options, **chosen).eval()
    report = load_weights(maps, save(source, "backbone."))
    assert report.coverage == 1
    expected = timm.create_model(name, **options, features_only=True, **chosen).eval()
    given = {key.replace(".", "_"): tensor for key, tensor in source.body.state_dict().items()}
    names = expected.state_dict().keys()
    expected.load_state_dict({name: given[name.removeprefix("model.").replace(".", "_")] for name in names})
    images = torch.randn(1, 3, 224, 224)
    found, theirs = maps(images), expected(images)[-len(maps.strides) :]
    assert all(
        torch.equal(ours, other if other.shape == ours.shape else other.permute(0, 3, 1, 2))
        for ours, other in zip(found, theirs, strict=True)
    )


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_a_backbone_fills_the_classifier_of_its_name(save, name):
    source = warm(TimmBackbone(name))
    classifier = TimmClassifier(name, options={"num_classes": 3})
    report = load_weights(classifier, save(source, "backbone."), class_names=("a", "b", "c"))
    assert report.coverage > 0.99
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(
        classifier.eval().body.forward_intermediates(images, intermediates_only=True)[-1], source(images)[-1]
    )
    assert {row.name for row in report.of_kind("re-initialised")} >= {"head.weight", "head.bias"}


def test_statistics_of_norms_are_loaded(save):
    source = warm(TimmClassifier("resnet18"))
    model = TimmBackbone("resnet18")
    load_weights(model, save(source))
    assert torch.equal(model.body.bn1.running_var, source.body.bn1.running_var)


def test_rows_of_the_classifier_are_copied_by_name(save):
    source = TimmClassifier("resnet18", options={"num_classes": 2})
    model = TimmClassifier("resnet18", options={"num_classes": 3})
    fresh = model.body.fc.weight[0].clone()
    load_weights(model, save(source), class_names=("fish", "dog", "cat"), source_class_names=("cat", "dog"))
    rows, theirs = model.body.fc.weight, source.body.fc.weight
    assert torch.equal(rows, torch.stack([fresh, theirs[1], theirs[0]]))


def test_what_a_model_for_maps_does_not_have_is_dropped_with_a_word(save):
    report = load_weights(TimmBackbone("convnext_atto"), save(TimmClassifier("convnext_atto")))
    dropped = {row.name: row.detail for row in report.of_kind("dropped")}
    assert dropped["head.norm.weight"] == "the model gives maps"
    assert dropped["head.weight"] == "the model has no classifier"
    assert report.used == 1


@pytest.mark.parametrize(
    ("given", "model", "message"),
    [
        ("resnet34", "resnet18", "only 5.* has a place in this ResNet"),
        ("resnet50", "resnet18", r"another model than this ResNet: its layer1"),
        ("convnext_atto", "resnet18", "holds no tensor of a ResNet: it has body.stem"),
    ],
)
def test_another_model_is_refused_and_leaves_the_model_as_it_was(save, given, model, message):
    model = TimmBackbone(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_weights(model, save(TimmClassifier(given)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_two_models_in_a_file_are_refused(save):
    both = torch.nn.ModuleDict({"student": TimmClassifier("resnet18"), "teacher": TimmClassifier("resnet18")})
    with pytest.raises(ValueError, match=r"several such models, under 'student\.body\.', 'teacher\.body\.'"):
        load_weights(TimmBackbone("resnet18"), save(both))
