#include "trainer/failure.hpp"

#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <string>

#include "comm/agree.hpp"
#include "core/error.hpp"

namespace muster {

int report_failure(const std::exception& error) {
  if (const auto* const told = dynamic_cast<const Told*>(&error)) return told->code();
  if (is_printed_here(error)) {
    constexpr std::size_t longest_line = 4000;
    std::string line = error.what();
    std::ranges::replace(line, '\n', ' ');
    std::fflush(stdout);
    fmt::print(stderr, "muster: {}\n", quotable(line, longest_line));
  }
  const ExitCode code = dynamic_cast<const UserError*>(&error)   ? ExitCode::user_error
                        : dynamic_cast<const PeerError*>(&error) ? ExitCode::try_again
                                                                 : ExitCode::defect;
  return static_cast<int>(code);
}

void end_job_if_alone(Communicator& comm, const std::exception& error) {
  if (dynamic_cast<const Agreed*>(&error) == nullptr && comm.size() > 1) comm.abort(report_failure(error));
}

}  // namespace muster
