"""Names of onnxruntime's graph optimizers that can be switched off one by one.

onnxruntime has no call that lists them; these are the ones of version 1.31 that
rewrite arithmetic. A name it does not know is ignored by it.
"""

__all__ = ["OPTIMIZERS"]

OPTIMIZERS = (
    "Pad_Fusion",
    "ConvAddFusion",
    "ConvMulFusion",
    "ConvBNFusion",
    "MatMul_BatchNormalization_Fusion",
    "MatMulAddFusion",
    "ConvActivationFusion",
    "ConvAddActivationFusion",
    "GemmActivationFusion",
    "GemmSumFusion",
    "GemmTransposeFusion",
    "MatMulActivationFusion",
    "MatMulScaleFusion",
    "MatmulTransposeFusion",
    "DivMulFusion",
    "ReluClipFusion",
    "ReluQuantFusion",
    "ReshapeFusion",
    "TransposeOptimizer",
    "NchwcTransformer",
    "NhwcTransformer",
    "ConstantFolding",
    "CommonSubexpressionElimination",
    "CastElimination",
    "CastChainElimination",
    "SkipLayerNormFusion",
    "LayerNormFusionL1",
    "LayerNormFusionL2",
    "GeluFusionL1",
    "GeluFusionL2",
    "FastGeluFusion",
    "BiasGeluFusion",
    "BiasSoftmaxFusion",
    "QuickGeluFusion",
    "QDQSelectorActionTransformer",
    "EliminateIdentity",
    "EliminateSlice",
    "UnsqueezeElimination",
    "ExpandElimination",
    "NoopElimination",
)
