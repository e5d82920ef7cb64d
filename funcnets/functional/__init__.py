"""Stateless array functions under ``torch.nn.functional``'s names, arguments and defaults.

Functions that draw random numbers take a key, ``rng=``. ``funcnets.nn.functional`` has the same names and
provides the key. Outside of ``jit`` a call is one dispatch of a compiled program (``_one_program``).
"""

from funcnets.functional._one_program import one_program
from funcnets.functional.activation import (
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    hardtanh_,
    leaky_relu,
    leaky_relu_,
    prelu,
    relu,
    relu6,
    relu_,
    rrelu,
    rrelu_,
    softshrink,
    threshold,
    threshold_,
)
from funcnets.functional.activation_smooth import (
    celu,
    celu_,
    elu,
    elu_,
    gelu,
    glu,
    logsigmoid,
    mish,
    selu,
    selu_,
    sigmoid,
    silu,
    softplus,
    softsign,
    tanh,
    tanhshrink,
)
from funcnets.functional.activation_softmax import gumbel_softmax, log_softmax, softmax, softmin
from funcnets.functional.attention import scaled_dot_product_attention
from funcnets.functional.batchnorm import (
    batch_norm,
    batch_norm_stats,
    instance_norm,
    instance_norm_stats,
    running_average,
)
from funcnets.functional.conv import conv1d, conv2d, conv3d, conv_tbc
from funcnets.functional.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d
from funcnets.functional.distance import cosine_similarity, normalize, pairwise_distance, pdist
from funcnets.functional.dropout import (
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    feature_alpha_dropout,
)
from funcnets.functional.embedding import embedding, embedding_bag, embedding_renorm, one_hot
from funcnets.functional.flatten import flatten, unflatten
from funcnets.functional.fold import fold, unfold
from funcnets.functional.grid_sample import affine_grid, grid_sample
from funcnets.functional.grouped_mm import grouped_mm
from funcnets.functional.interpolate import (
    interpolate,
    upsample,
    upsample_bilinear,
    upsample_nearest,
)
from funcnets.functional.linear import bilinear, linear
from funcnets.functional.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    nll_loss,
)
from funcnets.functional.loss_ctc import ctc_loss
from funcnets.functional.loss_embedding import (
    cosine_embedding_loss,
    triplet_margin_loss,
    triplet_margin_with_distance_loss,
)
from funcnets.functional.loss_linear import linear_cross_entropy
from funcnets.functional.loss_margin import (
    hinge_embedding_loss,
    margin_ranking_loss,
    multi_margin_loss,
    multilabel_margin_loss,
    multilabel_soft_margin_loss,
    soft_margin_loss,
)
from funcnets.functional.loss_regression import (
    gaussian_nll_loss,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    poisson_nll_loss,
    smooth_l1_loss,
)
from funcnets.functional.multihead_attention import multi_head_attention_forward
from funcnets.functional.norm import (
    cross_map_lrn2d,
    group_norm,
    layer_norm,
    local_response_norm,
    rms_norm,
)
from funcnets.functional.padding import pad
from funcnets.functional.pool import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool1d_with_indices,
    max_pool2d,
    max_pool2d_with_indices,
    max_pool3d,
    max_pool3d_with_indices,
)
from funcnets.functional.pool_adaptive import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool1d_with_indices,
    adaptive_max_pool2d,
    adaptive_max_pool2d_with_indices,
    adaptive_max_pool3d,
    adaptive_max_pool3d_with_indices,
)
from funcnets.functional.pool_fractional import (
    fractional_max_pool2d,
    fractional_max_pool2d_with_indices,
    fractional_max_pool3d,
    fractional_max_pool3d_with_indices,
)
from funcnets.functional.pool_lp import lp_pool1d, lp_pool2d, lp_pool3d
from funcnets.functional.pool_unpool import max_unpool1d, max_unpool2d, max_unpool3d
from funcnets.functional.recurrent import gru, lstm, rnn_relu, rnn_tanh
from funcnets.functional.recurrent_cell import gru_cell, lstm_cell, rnn_relu_cell, rnn_tanh_cell
from funcnets.functional.scaled_mm import ScalingType, SwizzleType, scaled_grouped_mm, scaled_mm
from funcnets.functional.vision import (
    channel_shuffle,
    native_channel_shuffle,
    pixel_shuffle,
    pixel_unshuffle,
)

__all__ = [
    "ScalingType",
    "SwizzleType",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool1d_with_indices",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d",
    "adaptive_max_pool3d_with_indices",
    "affine_grid",
    "alpha_dropout",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "batch_norm_stats",
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "celu_",
    "channel_shuffle",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_tbc",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "cross_map_lrn2d",
    "ctc_loss",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "elu",
    "elu_",
    "embedding",
    "embedding_bag",
    "embedding_renorm",
    "feature_alpha_dropout",
    "flatten",
    "fold",
    "fractional_max_pool2d",
    "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices",
    "gaussian_nll_loss",
    "gelu",
    "glu",
    "grid_sample",
    "group_norm",
    "grouped_mm",
    "gru",
    "gru_cell",
    "gumbel_softmax",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hardtanh_",
    "hinge_embedding_loss",
    "huber_loss",
    "instance_norm",
    "instance_norm_stats",
    "interpolate",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "leaky_relu_",
    "linear",
    "linear_cross_entropy",
    "local_response_norm",
    "log_softmax",
    "logsigmoid",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "lstm",
    "lstm_cell",
    "margin_ranking_loss",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d",
    "max_pool3d_with_indices",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "mish",
    "mse_loss",
    "multi_head_attention_forward",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "native_channel_shuffle",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "pairwise_distance",
    "pdist",
    "pixel_shuffle",
    "pixel_unshuffle",
    "poisson_nll_loss",
    "prelu",
    "relu",
    "relu6",
    "relu_",
    "rms_norm",
    "rnn_relu",
    "rnn_relu_cell",
    "rnn_tanh",
    "rnn_tanh_cell",
    "rrelu",
    "rrelu_",
    "running_average",
    "scaled_dot_product_attention",
    "scaled_grouped_mm",
    "scaled_mm",
    "selu",
    "selu_",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "threshold_",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
    "unflatten",
    "unfold",
    "upsample",
    "upsample_bilinear",
    "upsample_nearest",
]

_AS_WRITTEN = {
    # They look at the values of arrays, where there are any, and then say more about what is wrong.
    "grouped_mm",
    "one_hot",
    "scaled_grouped_mm",
    "scaled_mm",
    # They return numbers, too, that are no arrays.
    "batch_norm_stats",
    "instance_norm_stats",
}

for _name in __all__:
    if (
        callable(globals()[_name])
        and not isinstance(globals()[_name], type)
        and _name not in _AS_WRITTEN
    ):
        globals()[_name] = one_program(globals()[_name])
        globals()[_name].__module__ = __name__  # where pickle finds it
