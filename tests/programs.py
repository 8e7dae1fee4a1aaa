"""Reads compiled programs."""

import re


def turned_products(program):
    """Returns the products of two matrices that XLA's library for CPUs does not get: see `ops.products`.

    Those of a batch are as many small ones, whose sums are not cut.
    """
    found = []
    for line in program.splitlines():
        product = re.search(r" = \w+\[(\d+),(\d+)\]\S* dot\(.*lhs_contracting_dims=\{0\}", line)
        if product and "batch_dims" not in line and min(map(int, product.groups())) > 1:
            found.append(line.strip())
    return found
