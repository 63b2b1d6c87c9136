// What this program is and where it runs: for run.json, and to tell whether two runs can have the same bits.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace muster {

std::string version();  // "0.1.0"
// "7257ceb1a2f0", with "-dirty" behind it where files were changed; empty without git. As text it ends at the first zero.
extern const std::array<char, 32> commit_text;
inline std::string commit() { return commit_text.data(); }
std::string backends();  // "cpu, cuda (sm 80, 90, 100 with nccl and cudnn)"

std::string mpi_version();  // "Open MPI v4.1.4"

// What --version prints.
std::string describe_build();

// Names and versions of the libraries that the program runs with.
std::vector<std::pair<std::string, std::string>> library_versions();

// Where in the program's file the bytes at `address` lie; nothing if they come from elsewhere.
std::optional<std::size_t> place_in_program(const void* address);

// What the bits of a computation depend on beside its configuration: the hash of this binary but for the commit that it
// names (what was only told anew computes the same), the instruction set in use
// (core/instruction_set.hpp) and what libraries look for in the processor, their versions, the device's own
// (Machine::fingerprint). Equal texts promise equal bits.
std::string fingerprint(const std::string& device);

// The content of run.json, by rank 0. `hosts`: the host of each rank.
std::string describe_run(std::int64_t attempt, const std::vector<std::string>& hosts,
                         const std::string& device, const std::string& fingerprint);

}  // namespace muster
