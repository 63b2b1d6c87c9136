// BERT (Devlin et al. 2019): a bidirectional encoder that learns to restore tokens which were masked out.
//
//   h = norm(token_embedding[tokens] + position_embedding[positions] + type_embedding[token_types])
//   for each block: h = norm(h + attention(h));  h = norm(h + down(gelu(up(h))))      gelu in its exact form
//   loss = cross_entropy(norm(gelu(dense(h))) token_embedding^T, targets)
//
// Of the tokens of a sample each is a target with probability `mask`; of these, 80% are replaced by the mask token, 10% by
// any token, and 10% stay. All draws come from Philox at (position, slot of the sample), so that they do not depend on
// ranks; a sample met again in another epoch is masked anew. The mask token is the last of the vocabulary, behind those of
// the dataset. There is no bias on the logits, which BertForMaskedLM has.
//
// Inputs: tokens, targets, positions, token_types i32 [B T], document_starts.
#pragma once

#include "model/families/family.hpp"

namespace muster {

FamilyEntry bert_family();

}  // namespace muster
