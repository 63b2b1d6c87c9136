// Decoder-only language models: `gpt` and `llama`.
//
//   h = token_embedding[tokens] (+ position_embedding[positions] for gpt)
//   for each block: h = h + attention(norm(h));  h = h + feed_forward(norm(h))
//   loss = cross_entropy(norm(h) head^T, targets), head = token_embedding when tied
//
// gpt: LayerNorm, learned positions, GELU, biases, dropout (Radford et al. 2019). llama: RMSNorm, rotary
// positions, SwiGLU, no biases but, if asked for, those of qkv (Touvron et al. 2023; Qwen2.5 2024).
//
// Inputs: tokens, targets, positions i32 [B T], document_starts.
#pragma once

#include "model/families/family.hpp"

namespace muster {

FamilyEntry gpt_family();
FamilyEntry llama_family();

}  // namespace muster
