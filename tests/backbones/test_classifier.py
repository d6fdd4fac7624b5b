import pytest
import timm
import torch

from flatten_dense.backbones import TimmBackbone, TimmClassifier, load_weights


def test_logits_are_the_models_own():
    torch.manual_seed(0)
    classifier = TimmClassifier("flatten_pvt_test").eval()
    classifier.set_num_classes(5)
    images = torch.randn(2, 3, 64, 96)
    model = timm.create_model("flatten_pvt_test", num_classes=5).eval()
    model.load_state_dict(classifier.body.state_dict())
    assert torch.equal(classifier(images), model(images))


def test_a_classifier_of_as_many_classes_is_kept():
    classifier = TimmClassifier("flatten_pvt_test", options={"num_classes": 5})
    weight = classifier.body.head.weight
    classifier.set_num_classes(5)
    assert classifier.body.head.weight is weight
    classifier.set_num_classes(7)
    assert classifier.body.head.weight.shape[0] == 7


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_models_of_timm_take_other_sizes(name):
    classifier = TimmClassifier(name)
    classifier.set_num_classes(3)
    assert classifier(torch.randn(1, 3, 64, 80)).shape == (1, 3)


def test_its_weights_start_a_backbone_for_maps(tmp_path):
    classifier = TimmClassifier("flatten_pvt_v2_test")
    classifier.set_num_classes(3)
    torch.save(classifier.state_dict(), tmp_path / "classifier.pt")
    backbone = TimmBackbone("flatten_pvt_v2_test")
    report = load_weights(backbone, tmp_path / "classifier.pt")
    assert report.coverage == 1
    images = torch.randn(1, 3, 64, 64)
    _, maps = classifier.eval().body.forward_intermediates(images, norm=True)
    torch.testing.assert_close(backbone.eval()(images)[-1], maps[-1])


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="unknown backbone name 'resnet_18'"):
        TimmClassifier("resnet_18")


@pytest.mark.parametrize("name", ["flatten_pvt_test", "flatten_pvt_v2_test", "resnet18", "vit_tiny_patch16_224"])
def test_pooled_features_are_what_the_last_layer_sees(name):
    torch.manual_seed(0)
    classifier = TimmClassifier(name).eval()
    classifier.set_num_classes(5)
    images = torch.randn(2, 3, 64, 96)
    last = classifier.body.get_classifier()
    torch.testing.assert_close(last(classifier.pooled(images)), classifier(images))


def test_pooled_features_of_a_size_that_the_model_cannot_take_are_refused():
    classifier = TimmClassifier("levit_128s")
    with pytest.raises(ValueError, match="cannot take images of 96x64 pixels"):
        classifier.pooled(torch.randn(2, 3, 64, 96))


def test_a_backbone_for_maps_and_a_classifier_of_the_same_weights_pool_alike():
    torch.manual_seed(0)
    classifier, backbone = TimmClassifier("resnet18").eval(), TimmBackbone("resnet18").eval()
    backbone.body.load_state_dict({k: v for k, v in classifier.body.state_dict().items() if not k.startswith("fc.")})
    images = torch.randn(2, 3, 64, 96)
    torch.testing.assert_close(backbone.pooled(images), classifier.pooled(images))
