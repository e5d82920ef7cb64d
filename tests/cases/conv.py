"""Convolutions and transposed convolutions, as layers and as functions."""

from __future__ import annotations

from tests.cases.case import Case, Normal


def conv(n, *args, inputs, id="", call=None, **options) -> Case:
    return Case(f"Conv{n}d", args, options, inputs, call or {}, id=id)


def up(n, *args, inputs, id="", call=None, **options) -> Case:
    return Case(f"ConvTranspose{n}d", args, options, inputs, call or {}, id=id)


def fn(name, *inputs, id="", **options) -> Case:
    return Case(name, fn=True, inputs=inputs, kwargs=options, id=id)


SEQUENCE = (Normal(2, 4, 7),)
IMAGE = (Normal(2, 4, 6, 5),)
VOLUME = (Normal(1, 2, 4, 3, 5),)

CASES = [
    conv(1, 4, 3, 3, inputs=SEQUENCE),
    conv(1, 4, 3, 3, inputs=(Normal(4, 7),), id="unbatched"),
    conv(1, 4, 3, (2,), inputs=SEQUENCE, stride=(2,), padding=(1,), dilation=(2,)),
    conv(1, 4, 3, 1, inputs=SEQUENCE, bias=False),
    conv(1, 4, 6, 3, inputs=SEQUENCE, padding="same", groups=2),
    conv(1, 4, 6, 4, inputs=SEQUENCE, padding="same", dilation=2, padding_mode="circular"),
    conv(1, 4, 3, 3, inputs=SEQUENCE, padding=3, padding_mode="reflect", stride=2),
    conv(1, 4, 3, 3, inputs=(Normal(0, 4, 7),), id="empty-batch"),
    conv(1, 4, 3, 7, inputs=SEQUENCE, id="kernel-fills-input"),
    Case("Conv2d", (4, 3, 3), {"padding": 1}, IMAGE, second=True),
    conv(2, 4, 3, [3, 2], inputs=IMAGE, stride=(2, 1), padding=(0, 1), dilation=(1, 2)),
    conv(2, 4, 8, 3, inputs=IMAGE, groups=4, padding="same"),
    conv(2, 4, 6, 3, inputs=IMAGE, groups=2, padding="valid", bias=False),
    conv(2, 4, 3, (2, 4), inputs=IMAGE, padding="same", padding_mode="reflect"),
    conv(2, 4, 3, (2, 4), inputs=IMAGE, padding="same", padding_mode="zeros", id="uneven"),
    conv(2, 4, 3, 3, inputs=IMAGE, padding=(2, 1), padding_mode="replicate"),
    conv(2, 4, 3, 3, inputs=(Normal(4, 6, 5),), padding=(5, 4), padding_mode="circular"),
    conv(2, 4, 3, 3, inputs=IMAGE, padding="valid", padding_mode="circular"),
    conv(2, 4, 3, 1, inputs=IMAGE, stride=3, id="pointwise"),
    conv(3, 2, 3, 2, inputs=VOLUME),
    conv(3, 2, 4, (1, 3, 2), inputs=VOLUME, stride=(2, 1, 3), padding=(0, 1, 2), groups=2),
    conv(3, 2, 2, 3, inputs=(Normal(2, 4, 3, 5),), padding="same", padding_mode="replicate"),
    conv(3, 2, 2, 2, inputs=VOLUME, padding=1, padding_mode="circular", dilation=(1, 2, 1)),
    up(1, 4, 3, 3, inputs=SEQUENCE),
    up(1, 4, 3, 2, inputs=(Normal(4, 7),), stride=2, id="unbatched"),
    up(1, 4, 6, 4, inputs=SEQUENCE, stride=3, padding=1, output_padding=2, groups=2, bias=False),
    up(1, 4, 3, 3, inputs=SEQUENCE, dilation=2, output_padding=1),
    up(1, 4, 3, 3, inputs=SEQUENCE, stride=2, call={"output_size": (16,)}),
    Case("ConvTranspose2d", (4, 3, 3), {"stride": 2, "padding": 1}, IMAGE, second=True),
    up(2, 4, 6, (3, 2), inputs=IMAGE, stride=(1, 2), padding=(2, 0), groups=2),
    up(2, 4, 4, 3, inputs=IMAGE, stride=2, output_padding=(1, 0), dilation=(1, 2), groups=4),
    up(2, 4, 3, 1, inputs=IMAGE, padding=1, id="padding-beyond-kernel"),
    up(2, 4, 3, 3, inputs=IMAGE, stride=2, padding=1, call={"output_size": [12, 9]}),
    up(2, 4, 3, 3, inputs=(Normal(4, 6, 5),), stride=2, call={"output_size": (3, 13, 11)}),
    up(3, 2, 3, 2, inputs=VOLUME, stride=2),
    up(3, 2, 2, (2, 1, 3), inputs=VOLUME, padding=(1, 0, 1), padding_mode="zeros", groups=2),
    fn("conv1d", *SEQUENCE, Normal(3, 4, 3)),
    fn("conv1d", *SEQUENCE, Normal(6, 2, 3), Normal(6), padding="same", groups=2),
    fn("conv2d", *IMAGE, Normal(3, 4, 3, 3), Normal(3), stride=2, padding=(1, 2)),
    fn("conv3d", *VOLUME, Normal(3, 2, 2, 2, 2), dilation=(1, 1, 2)),
    fn("conv_transpose1d", *SEQUENCE, Normal(4, 3, 3), Normal(3), stride=2),
    fn("conv_transpose2d", *IMAGE, Normal(4, 3, 3, 3), stride=2, output_padding=1),
    fn("conv_transpose3d", *VOLUME, Normal(2, 2, 2, 2, 2), Normal(4), groups=2, padding=1),
    fn("conv_tbc", Normal(6, 2, 4), Normal(3, 4, 5), Normal(5)),
    fn("conv_tbc", Normal(3, 2, 4), Normal(5, 4, 5), Normal(5), pad=2),
]
