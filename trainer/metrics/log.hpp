// The log of a rank: everything into log/rank-N.log, and on the rank that speaks also onto the screen.
#pragma once

#include <memory>
#include <string>

namespace spdlog {
class logger;
}

namespace muster {

// Appends to `file`. With `console`, lines also go to the standard output as they are, those that warn to the
// standard error, as far as these take them at once. The logger is in no registry: whoever logs is given it.
std::shared_ptr<spdlog::logger> make_log(const std::string& file, bool console);

}  // namespace muster
