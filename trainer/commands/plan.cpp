#include "trainer/commands/plan.hpp"

#include "core/error.hpp"

namespace muster {

int plan_command(const PlanOptions&) { throw UserError("not built yet"); }

}  // namespace muster
