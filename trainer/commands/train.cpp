#include "trainer/commands/train.hpp"

#include "core/error.hpp"

namespace muster {

int train_command(const TrainOptions&) { throw UserError("not built yet"); }

}  // namespace muster
