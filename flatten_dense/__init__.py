"""Dense prediction at high resolution with focused linear attention. Importing registers our backbones with timm."""

from flatten_dense import backbones as backbones
