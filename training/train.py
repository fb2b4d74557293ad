"""Trains pentimento-nano in stages, each with a time budget, each resumed from its checkpoint.

    python train.py latents
    python train.py decoder --minutes 10
    python train.py grain --minutes 35 --workers 2
    python train.py tokenizers
    python train.py texts --minutes 35 --workers 2
    python train.py transformer --minutes 72 --workers 2
    python train.py edges
    python train.py canny --minutes 112 --workers 2
    python train.py export
    python train.py import

Stages read `<cache>/pictures` (see prepare.py) and write `<cache>/checkpoints` and `<cache>/latents`. A budget counts
all time that a stage has trained, over restarts; the learning rate falls along a cosine over that budget. With
`--again` a stage that was finished goes on from its weights as if it had just begun, for new pictures for example.
`export` writes the averaged weights as float16 in the diffusers layout; `import` makes checkpoints of such folders, so
that training can go on from a model that was exported elsewhere; `texts` then teaches those encoders on, which a folder
has without what the teacher of the transformer needs. Options: --cache, --model, --device, --seed, --threads,
--workers, --learning-rate.
"""

import argparse
import os
from pathlib import Path

# Threads that wait by spinning starve each other on a CPU that other programs share. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch  # noqa: E402

import autoencoder  # noqa: E402
import folders  # noqa: E402
import models  # noqa: E402
import painting  # noqa: E402
import texts  # noqa: E402

HERE = Path(__file__).resolve().parent
STAGES = {
    "latents": autoencoder.cache_latents,
    "decoder": autoencoder.train_decoder,
    "grain": autoencoder.train_grain,
    "tokenizers": models.cache_tokenizers,
    "texts": texts.train_texts,
    "transformer": painting.train_transformer,
    "edges": painting.cache_edges,
    "canny": painting.train_canny,
    "export": folders.export,
    "import": folders.import_model,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--again", action="store_true", help="keep a checkpoint's weights and begin its clock anew")
    parser.add_argument("--learning-rate", type=float, help="instead of the stage's own")
    parser.add_argument("--cache", type=Path, default=HERE.parent / "target/nano")
    parser.add_argument("--model", type=Path, default=HERE.parent / "models/pentimento-nano")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--workers", type=int, default=1, help="processes that train copies and average them")
    arguments = parser.parse_args()
    (arguments.cache / "checkpoints").mkdir(parents=True, exist_ok=True)
    if arguments.workers == 1:
        return work(0, arguments)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29507", WORLD_SIZE=str(arguments.workers))
    torch.multiprocessing.spawn(work, (arguments,), arguments.workers)


def work(rank, arguments):
    arguments.rank = rank
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    if arguments.workers > 1:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=arguments.workers)
    STAGES[arguments.stage](arguments)


if __name__ == "__main__":
    main()
