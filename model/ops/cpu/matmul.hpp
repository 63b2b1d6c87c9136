// The matrix product under every linear layer: C[m, n] = sum over k of A[m, k] B[k, n], f32 or bf16 in, sums
// in f32.
//
// Two engines compute tiles of C, each tile on one thread. Our own kernels sum an element over blocks of k that are
// fixed by the type and the instruction set alone, each in increasing order: its bits depend on nothing but its own row
// of A and column of B. oneDNN is faster where the processor has AMX; there the bits depend on the shape as well, which
// fixes the tiles. Neither depends on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/instruction_set.hpp"
#include "model/ops/cpu/isa.hpp"
#include "model/ops/cpu/matmul_types.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

// The faster one on this processor.
inline MatmulEngine engine_for(DType type) {
  return type == DType::bf16 && instruction_set() == InstructionSet::amx ? MatmulEngine::onednn
                                                                         : MatmulEngine::own;
}

// The workspace is aligned to 64 bytes and of matmul_workspace's size for thread_count() threads. Sizes are
// known before there is memory: matmul_workspace reads neither pointers nor c.accumulate.
void matmul(const Matmul& product, std::byte* workspace, MatmulEngine engine);
std::uint64_t matmul_workspace(const Matmul& product, int threads, MatmulEngine engine);

inline void matmul(const Matmul& product, std::byte* workspace) {
  matmul(product, workspace, engine_for(product.type));
}
inline std::uint64_t matmul_workspace(const Matmul& product, int threads) {
  return matmul_workspace(product, threads, engine_for(product.type));
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
