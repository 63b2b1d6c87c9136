// A batch of the prefetch ring goes into the inputs of a plan.
#pragma once

#include "core/stream.hpp"
#include "data/loader.hpp"
#include "model/executor.hpp"

namespace muster {

// Appends the copies to the stream; the batch must stay as it is until they are made. `documents`: the plan
// has document masks.
void fill_inputs(Stream& stream, const Executor& executor, const Bindings& bindings, const Batch& batch,
                 bool documents);

}  // namespace muster
