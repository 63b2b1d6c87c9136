// Checks of a shape rule; a mismatch is a defect of whoever built the graph and names the op.
#pragma once

#include <string>

#include "core/error.hpp"
#include "model/ops/op.hpp"

namespace muster {

inline void expect(const Op& op, bool holds, const char* what, SourceLine where = SourceLine::current()) {
  if (!holds) throw Defect(std::string(op.name()) + ": " + what, where);
}

}  // namespace muster
