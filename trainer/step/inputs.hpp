// A batch of the prefetch ring goes into the inputs of a plan.
#pragma once

#include "core/fields.hpp"
#include "core/stream.hpp"
#include "model/executor.hpp"

namespace muster {

// Appends the copies of all fields to the stream; the batch must stay as it is until they are made.
void fill_inputs(Stream& stream, const Executor& executor, const Bindings& bindings, const Batch& batch);

}  // namespace muster
