"""The frozen base in 4, 8, 16 or 32 bits, and the LoRA adapter on it."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from fedit_client.hardware.device import DevicePlan
from fedit_client.training.base_view import pinned_view
from fedit_protocol.adapter import AdapterLayout, Tensors
from fedit_protocol.errors import FeditError, ModelError, TaskRefusedError
from fedit_protocol.peft_folder import WEIGHTS
from fedit_protocol.task import AdapterSpec, Quantization

_ADAPTER_NAME = ".default"


def load_base(base: Path, plan: DevicePlan, *, for_training: bool = True) -> Any:
    """Return the base as the plan says, frozen; only safetensors are read and no code from the folder is run.

    Without `for_training` the first forward pass may repack 4-bit weights for speed; such a model never trains again.
    Raises ModelError M003 if the folder does not hold such a model, M001, M007 like `check_base`.
    """
    try:
        with pinned_view(base) as folder:
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, plan.compute_dtype),
                quantization_config=_quantization(plan),
                device_map={"": plan.device},
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
            )
    except (OSError, ValueError, KeyError) as error:
        raise _unloadable("model", base, error) from error
    # PEFT's prepare_model_for_kbit_training is not used: it would cast embeddings and head to float32.
    model.requires_grad_(False)
    if for_training:
        keep_weights_trainable(model)
    return model


def attach_adapter(model: Any, spec: AdapterSpec, layout: AdapterLayout) -> Any:
    """Return the model with a fresh LoRA adapter, float32 and trainable.

    Raises TaskRefusedError K006 unless PEFT's tensors have exactly the layout's names and shapes.
    """
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,  # type: ignore[arg-type]  # declared int, used as a factor
        lora_dropout=spec.dropout,
        target_modules=list(spec.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise TaskRefusedError(f"the adapter does not fit the base: {error}", code="K006") from error
    found = {name: tuple(parameter.shape) for name, parameter in _adapter_parameters(adapted).items()}
    if found != {tensor.name: tensor.shape for tensor in layout.tensors}:
        raise TaskRefusedError("the base does not have the layers that the task's adapter layout names", code="K006")
    return adapted


def attach_saved(model: Any, folder: Path, name: str = "default") -> Any:
    """Return the model with the adapter of a PEFT folder, for inference; raises ModelError M004 if it does not fit."""
    _check_weights(folder)
    try:
        return PeftModel.from_pretrained(model, str(folder), adapter_name=name, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise _unattachable(folder, error) from error


def attach_another(model: Any, folder: Path, name: str) -> Any:
    """Return the model with one more adapter of a PEFT folder under a name of its own; raises ModelError M004."""
    if not isinstance(model, PeftModel):
        return attach_saved(model, folder, name)
    _check_weights(folder)
    try:
        model.load_adapter(str(folder), adapter_name=name, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise _unattachable(folder, error) from error
    return model


def load_tensors(path: Path, layout: AdapterLayout) -> dict[str, Any]:
    """Read a float32 adapter file; raises ModelError M004 unless it holds exactly the layout's tensors."""
    try:
        tensors = load_file(path)
        layout.flatten(tensors)
    except (OSError, ValueError, FeditError) as error:
        raise ModelError(f"the adapter cannot be used: {_brief(error)}", code="M004", where=str(path)) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # derives from Exception alone
            raise
        raise ModelError("the adapter is not a safetensors file", code="M004", where=str(path)) from error
    return tensors


@torch.no_grad()
def write_adapter(model: Any, tensors: Tensors) -> None:
    """Set the adapter's parameters to these float32 tensors, bit for bit."""
    parameters = _adapter_parameters(model)
    for name, array in tensors.items():
        parameters[name].copy_(torch.from_numpy(array))


def train_only(model: Any, names: Collection[str]) -> None:
    """Ask for gradients of these tensors of the adapter, and of no others."""
    for name, parameter in _adapter_parameters(model).items():
        parameter.requires_grad_(name in names)


def parameter_names(model: Any) -> Mapping[str, str]:
    """Return the layout's name of each tensor of the adapter → the name of its parameter in the model."""
    return {name.replace(_ADAPTER_NAME, ""): name for name, _ in model.named_parameters() if "lora_" in name}


def read_adapter(model: Any) -> dict[str, Any]:
    """Return the adapter's float32 tensors as numpy arrays, by the layout's names."""
    return {name: parameter.detach().cpu().numpy().copy() for name, parameter in _adapter_parameters(model).items()}


def _adapter_parameters(model: Any) -> Mapping[str, torch.nn.Parameter]:
    """PEFT puts the adapter's own name into each parameter's; in files, and in the layout, it is absent."""
    return {
        name.replace(_ADAPTER_NAME, ""): parameter for name, parameter in model.named_parameters() if "lora_" in name
    }


def _check_weights(folder: Path) -> None:
    if not (folder / WEIGHTS).is_file():  # PEFT would look for a pickle next
        raise ModelError(f"the adapter has no {WEIGHTS}", code="M004", where=str(folder))


def _unattachable(folder: Path, error: Exception) -> ModelError:
    return ModelError(f"the adapter cannot be loaded: {_brief(error)}", code="M004", where=str(folder))


def _quantization(plan: DevicePlan) -> BitsAndBytesConfig | None:
    match plan.quantization:
        case Quantization.NF4:
            return BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=getattr(torch, plan.compute_dtype),
            )
        case Quantization.INT8:
            return BitsAndBytesConfig(load_in_8bit=True)
        case Quantization.BF16 | Quantization.FP32:
            return None


def keep_weights_trainable(model: Any) -> None:
    """Stop bitsandbytes from repacking 4-bit weights at the first pass without gradients (CPU with AVX512-BF16).

    The repacked product has no backward: after one evaluation, training would go on without an error and learn nothing.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _unloadable(what: str, base: Path, error: Exception) -> ModelError:
    return ModelError(f"the base's {what} cannot be loaded: {_brief(error)}", code="M003", where=str(base))


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
