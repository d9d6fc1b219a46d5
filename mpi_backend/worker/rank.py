"""The program that ``mpiexec`` starts: one rank of a worker group. It captures its output before MPI starts."""

from alchemist_ray.mpi_backend.worker.output import capture


def main() -> None:
    """Run this rank."""
    output = capture()
    from alchemist_ray.mpi_backend.worker import worker  # starts MPI

    worker.main(output)


if __name__ == "__main__":
    main()
