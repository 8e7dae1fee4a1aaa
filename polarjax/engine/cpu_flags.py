"""How XLA compiles for CPUs: a thread a device. Without JAX, which reads the flags once, when it starts."""

from __future__ import annotations

from collections.abc import MutableMapping

# Blocks that fit the cache are too small to be shared by threads, which wait for each other longer than they work;
# a core gets a device instead. The newer emitters of loops divide them among threads as well. The library for
# products is slower than XLA at sums over an axis. Vectors are as wide as the machine's; the compiler would take half.
# The order of operations is that which needs least memory: what could be done side by side would find no core.
# Transposes are not folded into products: folded, they go to Eigen, which cuts a long sum into as many parts as XLA has
# threads, as many as there are devices or cores, and the last bits tell which. The other library's do not.
CPU_FLAGS = {
    "xla_cpu_multi_thread_eigen": "false",
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_experimental_ynn_fusion_type": "-LIBRARY_FUSION_TYPE_REDUCE",
    "xla_disable_hlo_passes": "cpu-parallel-task-assigner,transpose-folding",
    "xla_cpu_prefer_vector_width": "512",
    "xla_cpu_enable_concurrency_optimized_scheduler": "false",
}


def add_cpu_flags(environment: MutableMapping[str, str]) -> None:
    """Adds the flags to XLA_FLAGS, except those that are given; other backends do not read them."""
    flags = environment.get("XLA_FLAGS", "")
    missing = [f"--{name}={value}" for name, value in CPU_FLAGS.items() if name not in flags]
    environment["XLA_FLAGS"] = " ".join([flags, *missing]).strip()
