"""Look into attention: its explicit matrices, and what they are like in numbers."""

from flatten_dense.analysis.analyze import analyze_attention
from flatten_dense.analysis.capture import AttentionInputs, capture_attention
from flatten_dense.analysis.convolutions import convolution_matrix, convolution_rule
from flatten_dense.analysis.core_call import CoreCall
from flatten_dense.analysis.matrices import attention_weights, weights_rule
from flatten_dense.analysis.report import Analysis, HeadAnalysis, RankWithConvolution

__all__ = [
    "Analysis",
    "AttentionInputs",
    "CoreCall",
    "HeadAnalysis",
    "RankWithConvolution",
    "analyze_attention",
    "attention_weights",
    "capture_attention",
    "convolution_matrix",
    "convolution_rule",
    "weights_rule",
]
