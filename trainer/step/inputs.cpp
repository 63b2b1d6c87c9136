#include "trainer/step/inputs.hpp"

#include <cstdint>
#include <span>
#include <string_view>

#include "core/error.hpp"

namespace muster {

void fill_inputs(Stream& stream, const Executor& executor, const Bindings& bindings, const Batch& batch,
                 bool documents) {
  const auto fill = [&](std::string_view name, std::span<const std::int32_t> values) {
    const TensorView to = executor.view(name, bindings);
    check(static_cast<std::size_t>(to.elements()) == values.size(), "a batch fits the plan's inputs");
    stream.copy(to.data, values.data(), values.size_bytes());
  };
  fill("tokens", batch.tokens);
  fill("positions", batch.positions);
  fill("targets", batch.targets);
  if (documents) fill("document_starts", batch.document_starts);
}

}  // namespace muster
