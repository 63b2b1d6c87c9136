// Loops that only multiply and add, in registers: what the arithmetic of a core does when nothing else limits it. No
// kernel shares them, so a kernel that is compared with them cannot pass for fast because they are slow.
#pragma once

#include "core/dtype.hpp"
#include "core/instruction_set.hpp"

namespace muster {

struct RegisterLoop {
  void (*run)() = nullptr;  // on the calling thread, some 0.1 ms
  double flops = 0;         // of one run: 2 a multiply-add
};

// The best that a kernel of matrix products could be made of: 12 independent sums (4 tiles of them), each of which waits
// for itself alone.
//   f32    multiply-adds of vectors; a product and a sum, where the set has no instruction for both (SSE2)
//   bf16   sums of products of pairs (AVX-512 BF16), or of tiles (AMX), in f32; as f32 in sets that have neither, where bf16
//          is widened before it is multiplied
// `set` is one that the processor has. The numbers change from product to product: constant ones, zeros above all, cost less power
// and so run faster.
RegisterLoop register_loop(InstructionSet set, DType type);

}  // namespace muster
