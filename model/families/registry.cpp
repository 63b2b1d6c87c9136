// The families that there are.
#include <algorithm>

#include "core/error.hpp"
#include "model/families/bert.hpp"
#include "model/families/decoder_lm.hpp"
#include "model/families/family.hpp"

namespace muster {

const FamilyEntry& family_of(const ModelConfig& config) {
  static const FamilyEntry entries[] = {gpt_family(), llama_family(), bert_family()};
  const auto found = std::ranges::find(entries, config.family, &FamilyEntry::family);
  check(found != std::end(entries), "every family is in the registry");
  return *found;
}

}  // namespace muster
