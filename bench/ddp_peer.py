"""The peer: the same model by PyTorch DistributedDataParallel over gloo, in processes of its own.

`python bench/ddp_peer.py --workers 4 --parameters 5 --iterations 50` prints one JSON object.
"""

import argparse
import json
import os
import socket
import statistics
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import wide
from torch.nn.parallel import DistributedDataParallel

WARM_UP = 10


def train(
    rank: int, world: int, parameters: int, iterations: int, port: int, results: mp.SimpleQueue
) -> None:
    """Train in one process; rank 0 reports the seconds of each iteration."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.manual_seed(0)
    model = DistributedDataParallel(wide.build(parameters))
    optimizer = torch.optim.SGD(model.parameters(), lr=wide.LEARNING_RATE, momentum=wide.MOMENTUM)
    inputs = wide.examples(1024).tensors[0]
    seconds = []
    for iteration in range(WARM_UP + iterations):
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        index = (iteration * world + rank) % len(inputs)
        wide.loss(model, inputs[index : index + 1]).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    dist.barrier()
    if rank == 0:
        results.put(seconds[WARM_UP:])
    dist.destroy_process_group()


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Spawn the processes and print what rank 0 measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--parameters", type=int, required=True, help="million parameters")
    parser.add_argument("--iterations", type=int, default=50)
    args = parser.parse_args()
    results = mp.get_context("spawn").SimpleQueue()
    arguments = (args.workers, args.parameters, args.iterations, free_port(), results)
    processes = mp.start_processes(
        train, args=arguments, nprocs=args.workers, join=False, start_method="spawn"
    )
    seconds = results.get()
    while not processes.join():
        pass
    print(json.dumps({"iteration_seconds": statistics.median(seconds), "iterations": len(seconds)}))


if __name__ == "__main__":
    main()
