"""The first design's own program, with the numbers that today's TRL takes.

TRL counts completions where the design counted prompts, and has no `max_prompt_length` any more.
Run in a process of its own: python original_recipe.py MODEL DTYPE FOLDER
"""

import os

os.environ["UNSLOTH_VLLM_STANDBY"] = "1"

# Unsloth before all that it patches.
# isort: off
from unsloth import FastLanguageModel

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

# isort: on

from remote_trainer.rewards import create_reward_function

QUESTIONS = [(f"What is {i} + {i}? Answer with the number.", str(2 * i)) for i in range(2, 10)]


def main(name: str, dtype: str, folder: str) -> None:
    """Two updates; result.json in the folder tells what came of them."""
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=name,
        max_seq_length=1024,
        dtype=getattr(torch, dtype),
        load_in_4bit=True,
        fast_inference=True,
        max_lora_rank=16,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=16,
        target_modules=[
            "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
        ],
        lora_alpha=16,
        lora_dropout=0,
    )  # fmt: skip
    reward = create_reward_function(model, tokenizer, reward_type="supervised")
    rows = [
        {"prompt": [{"role": "user", "content": prompt}], "answer": answer}
        for prompt, answer in QUESTIONS
    ]
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[reward],
        args=GRPOConfig(
            output_dir=folder,
            learning_rate=5e-6,
            num_generations=8,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=4,
            max_completion_length=64,
            beta=0.04,
            max_steps=2,
            logging_steps=1,
            bf16=dtype == "bfloat16",
            fp16=dtype == "float16",
            report_to="none",
            save_strategy="no",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    (last, *_) = [line for line in reversed(trainer.state.log_history) if "reward" in line]
    config = model.vllm_engine.llm_engine.vllm_config.model_config
    told = {
        "steps": trainer.state.global_step,
        "trainer": type(trainer).__name__,
        "standby": bool(config.enable_sleep_mode),
        "reward": last["reward"],
    }
    Path(folder, "result.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
