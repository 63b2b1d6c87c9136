#include "trainer/commands/evaluate.hpp"

#include "core/error.hpp"

namespace muster {

int evaluate_command(const EvaluateOptions&) { throw UserError("not built yet"); }

}  // namespace muster
