"""The networks of the reference study's related work as generators: one small file per idea, all built on `direct`."""

from typing import Final

from eosr.nn.options.channel_attention import ChannelAttentionConfig, ChannelAttentionGenerator
from eosr.nn.options.direct import DirectConfig, DirectGenerator
from eosr.nn.options.drcn import DrcnConfig, DrcnGenerator
from eosr.nn.options.edsr import EdsrConfig, EdsrGenerator
from eosr.nn.options.pannet import PannetConfig, PannetGenerator
from eosr.nn.options.psgan import PsganConfig, PsganGenerator
from eosr.nn.options.rrdb import RrdbConfig, RrdbGenerator
from eosr.nn.options.second_order import SecondOrderConfig, SecondOrderGenerator
from eosr.nn.options.single_input import SingleInputConfig, SingleInputGenerator
from eosr.nn.options.srcnn import SrcnnConfig, SrcnnGenerator
from eosr.nn.options.vdsr import VdsrConfig, VdsrGenerator

__all__ = ["OPTIONS", "DirectConfig", "DirectGenerator"]

#: Every generator of this package with its configuration.
OPTIONS: Final[tuple[tuple[type[DirectGenerator], type[DirectConfig]], ...]] = (
    (SrcnnGenerator, SrcnnConfig),
    (VdsrGenerator, VdsrConfig),
    (EdsrGenerator, EdsrConfig),
    (RrdbGenerator, RrdbConfig),
    (ChannelAttentionGenerator, ChannelAttentionConfig),
    (SecondOrderGenerator, SecondOrderConfig),
    (SingleInputGenerator, SingleInputConfig),
    (PannetGenerator, PannetConfig),
    (PsganGenerator, PsganConfig),
    (DrcnGenerator, DrcnConfig),
)
