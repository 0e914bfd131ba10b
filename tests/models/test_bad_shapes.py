"""Numbers that make no network are refused before a weight is made, with the argument, its value and what would do."""

import pytest

from swin_lab import SwinTransformer, create_model
from swin_lab.errors import UserError

ABOVE_ZERO = "whole number above zero"

REFUSED = [
    ({"num_heads": [3, 6, 12, 25]}, "num_heads=[3, 6, 12, 25]: 25 heads do not divide the 768 channels", "24"),
    ({"embed_dim": 100}, "3 heads do not divide the 100 channels of stage 1 (embed_dim=100)", "[1, 2, 4, 5"),
    ({"depths": [2, 2]}, "depths=[2, 2] has 2 stages and num_heads=[3, 6, 12, 24] has 4", "one entry per stage"),
    ({"depths": []}, "depths=[]", "for example [2,2,6,2]"),
    ({"num_heads": []}, "num_heads=[]", "one entry per stage"),
    ({"depths": [2, 0, 6, 2]}, "depths=[2, 0, 6, 2]: 0", ABOVE_ZERO),
    ({"depths": [2, 2, -6, 2]}, "depths=[2, 2, -6, 2]: -6", ABOVE_ZERO),
    ({"depths": [2, 2, 6.0, 2]}, "depths=[2, 2, 6.0, 2]: 6.0", ABOVE_ZERO),
    ({"depths": 4}, "depths=4", "one entry per stage"),
    ({"num_heads": 4}, "num_heads=4", "one entry per stage"),
    ({"num_heads": [3, 0, 12, 24]}, "num_heads=[3, 0, 12, 24]: 0", ABOVE_ZERO),
    ({"window_size": 0}, "window_size=0", ABOVE_ZERO),
    ({"window_size": -7}, "window_size=-7", ABOVE_ZERO),
    ({"window_size": 7.0}, "window_size=7.0", "number"),
    ({"window_size": True}, "window_size=True", ABOVE_ZERO),
    ({"window_size": "7"}, "window_size=", "number"),
    ({"window_size": [7, 7, 7.5, 7]}, "window_size=", "number"),
    ({"window_size": [7, 7, 0, 7]}, "window_size=0", ABOVE_ZERO),
    ({"window_size": [4, 8]}, "window_size=[4, 8] has 2 entries for 4 stages", "[[4, 8], [4, 8], [4, 8], [4, 8]]"),
    ({"window_size": [[4, 8, 2]] * 4}, "window_size=[4, 8, 2]", "[height,width]"),
    ({"patch_size": 0}, "patch_size=0", ABOVE_ZERO),
    ({"patch_size": -4}, "patch_size=-4", ABOVE_ZERO),
    ({"patch_size": 4.0}, "patch_size=4.0", ABOVE_ZERO),
    ({"embed_dim": 0}, "embed_dim=0", ABOVE_ZERO),
    ({"embed_dim": -96}, "embed_dim=-96", ABOVE_ZERO),
    ({"in_channels": 0}, "in_channels=0", ABOVE_ZERO),
    ({"in_channels": -3}, "in_channels=-3", ABOVE_ZERO),
    ({"img_size": 0}, "img_size=0", ABOVE_ZERO),
    ({"img_size": [224, -224]}, "img_size=-224", ABOVE_ZERO),
    ({"img_size": 224.0}, "img_size=224.0", "number"),
    ({"img_size": [224, 224, 3]}, "img_size=[224, 224, 3]", "[height,width]"),
    ({"num_classes": -1}, "num_classes=-1", "0 for a model without head"),
    ({"num_classes": 10.5}, "num_classes=10.5", "number of classes"),
    ({"drop_path_rate": 1.5}, "drop_path_rate=1.5", "from 0 up to, not including, 1"),
    ({"drop_path_rate": 1.0}, "drop_path_rate=1.0", "from 0 up to, not including, 1"),
    ({"drop_path_rate": -0.1}, "drop_path_rate=-0.1", "from 0 up to, not including, 1"),
    ({"drop_path_rate": float("nan")}, "drop_path_rate=nan", "from 0 up to, not including, 1"),
    ({"mlp_ratio": 0}, "mlp_ratio=0", "4.0"),
    ({"mlp_ratio": -4.0}, "mlp_ratio=-4.0", "4.0"),
    ({"mlp_ratio": 0.001}, "mlp_ratio=0.001", "4.0"),
    ({"attention_backend": "flash"}, "'flash'", "choose one of auto, reference, sdpa"),
]


@pytest.mark.parametrize(("wrong", "complaint", "remedy"), REFUSED, ids=[str(wrong) for wrong, _, _ in REFUSED])
def test_the_message_names_the_argument_its_value_and_what_would_do(wrong, complaint, remedy):
    with pytest.raises(UserError) as refusal:
        SwinTransformer(**wrong)
    message = str(refusal.value)
    assert complaint in message
    assert remedy in message
    assert message.count("\n") < 3


def test_a_variant_by_name_is_checked_the_same_way():
    with pytest.raises(UserError, match="num_heads"):
        create_model("swin_micro_patch4_window4_32", num_heads=[3, 4])
