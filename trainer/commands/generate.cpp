#include "trainer/commands/generate.hpp"

#include "core/error.hpp"

namespace muster {

int generate_command(const GenerateOptions&) { throw UserError("not built yet"); }

}  // namespace muster
