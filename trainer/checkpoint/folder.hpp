// The folder of a run's checkpoints: their names, which of them are whole, and which may go.
//
// `step-00000100` is complete: it got that name by a rename, after everything in it was on the disk. Other
// names are left-overs that no reader takes for a checkpoint: `.partial-ATTEMPT` is being written,
// `.replaced-ATTEMPT` was in the way of one that the attempt saved, `.removing` is being deleted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace muster {

class Communicator;

// How far a checkpoint is trusted: `sizes` looks at the manifest and the files' sizes, `used` also compares
// the hash of each file before the first value is read from it, `full` those of all files at once.
enum class Trust : std::uint8_t { sizes, used, full };

struct CheckpointInfo {
  std::string path;
  std::int64_t step = 0, attempt = 0;
  bool finished = false;  // has its final name
  bool complete = false;  // and is whole by its manifest and sizes
  std::string problem;    // one line if not complete
  std::size_t files = 0;
  std::uint64_t bytes = 0;
  std::string saved;  // time, UTC
};

// "FOLDER/step-00000100", and the name under which it is written.
std::string checkpoint_path(const std::string& folder, std::int64_t step);
std::string partial_path(const std::string& folder, std::int64_t step, std::int64_t attempt);
std::string replaced_path(const std::string& folder, std::int64_t step, std::int64_t attempt);

// All that lies in `folder`, finished or not, by step; nothing if there is no such folder.
std::vector<CheckpointInfo> list_checkpoints(const std::string& folder);

// What is wrong with the checkpoint at `path`, one line each: nothing if every file has its size and hash.
// Of several workers each looks at its share of the files.
std::vector<std::string> verify_checkpoint(const std::string& path, Trust verify = Trust::full,
                                           std::size_t share = 0, std::size_t shares = 1);

using Warn = std::function<void(const std::string& line)>;

// The step of the newest checkpoint that is complete and intact. Each newer one is told to `warn`, with what
// is wrong with it.
std::optional<std::int64_t> newest_complete(const std::string& folder, Trust verify, const Warn& warn);
// The same for all ranks: rank 0 lists the folder and warns, all ranks share the work and agree.
std::optional<std::int64_t> newest_complete(Communicator& comm, const std::string& folder, Trust verify,
                                            const Warn& warn);

// Removes the complete checkpoints but the `keep` latest saved (0 keeps all), and what earlier attempts left
// unfinished. For one rank, of the run's current attempt. A kill half-way leaves nothing that looks complete. What cannot
// be removed, as a folder that is write-protected, stays and is told to `warn`. `beat` is called after each file.
void keep_newest(
    const std::string& folder, std::int64_t keep, std::int64_t attempt, const Warn& warn,
    const std::function<void()>& beat = [] {});
// Only what earlier attempts left: unfinished checkpoints, and those whose removal was.
void remove_leftovers(
    const std::string& folder, std::int64_t attempt, const Warn& warn,
    const std::function<void()>& beat = [] {});

// Of an attempt that is yet to begin: later than all.
constexpr std::int64_t next_attempt = std::numeric_limits<std::int64_t>::max();
// What keep_newest would remove for the next attempt, in bytes.
std::uint64_t removable_bytes(const std::string& folder, std::int64_t keep);
// Names what attempts before this one left unfinished in `folder`, each with its size; empty if there is nothing.
std::string describe_leftovers(const std::string& folder, std::int64_t attempt);

}  // namespace muster
