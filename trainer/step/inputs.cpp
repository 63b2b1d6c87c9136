#include "trainer/step/inputs.hpp"

#include <cstddef>
#include <span>

#include "core/error.hpp"

namespace muster {

void fill_inputs(Stream& stream, const Executor& executor, const Bindings& bindings, const Batch& batch) {
  for (const Field& field : batch.fields()) {
    const TensorView to = executor.view(field.name, bindings);
    const std::span<const std::byte> from = batch.bytes_of(field.name);
    check(to.dtype() == field.dtype && to.type->bytes() == from.size(), "a batch fits the plan's inputs");
    stream.copy(to.data, from.data(), from.size());
  }
}

}  // namespace muster
