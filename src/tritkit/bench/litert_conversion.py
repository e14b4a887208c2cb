"""From the float network of a workload to an int8 .tflite file; run by the Python of the conversion environment.

python -m tritkit.bench.litert_conversion WORKLOAD BATCH FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tritkit.bench.rewriting import without_strided_slices
from tritkit.bench.workload import Workload


def convert(work: Workload, batch: int, folder: Path) -> None:
    """Write `model.tflite`: float32 input and output, channels last; int8 between."""
    import litert_torch
    import torch
    from ai_edge_quantizer import qtyping, quantizer, recipe

    net: Any = without_strided_slices(work.network())  # slices with steps are not for its delegate: a third slower
    example = torch.from_numpy(work.images(batch))
    if example.ndim == 4:
        outputs = [0] if net(example).ndim == 4 else None
        net = litert_torch.to_channel_last_io(net, args=[0], outputs=outputs)
        example = example.permute(0, 2, 3, 1).contiguous()
    plain = folder / "plain.tflite"
    litert_torch.convert(net.eval(), (example,)).export(str(plain))
    target = quantizer.Quantizer(str(plain))
    target.load_quantization_recipe(recipe.static_wi8_ai8())
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        target.update_quantization_recipe(".*", end, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
    statistics = target.calibrate({_signature(plain): [_arguments(plain, x) for x in work.calibration(batch)]})
    target.quantize(statistics).export_model(str(folder / "model.tflite"), overwrite=True)
    plain.unlink()


def _signature(path: Path) -> str:
    from ai_edge_litert.interpreter import Interpreter

    return str(next(iter(Interpreter(str(path)).get_signature_list())))


def _arguments(path: Path, images: Any) -> dict[str, Any]:
    from ai_edge_litert.interpreter import Interpreter

    (name,) = Interpreter(str(path)).get_signature_list()[_signature(path)]["inputs"]
    return {name: images.transpose(0, 2, 3, 1).copy() if images.ndim == 4 else images}


def main() -> None:
    work, batch, folder = sys.argv[1:]
    convert(Workload(Path(work)), int(batch), Path(folder))


if __name__ == "__main__":
    main()
