// The folder of a run: where everything in it lies, and which attempt may write there.
//
//   config.toml   the resolved configuration          checkpoints/step-NNNNNNNN/
//   run.json      version, hosts, libraries           log/rank-N.log
//   metrics.jsonl one object a step                   attempts/000001   host and pid of each attempt
//
// An attempt is one start of the program on the run; its number is taken with O_EXCL, so no two have the
// same. The newest file in attempts/ is the run's lock: an older attempt whose ranks still live finds itself
// superseded before it renames or appends anything, and stops.
//
// Whether an attempt lives is told where the same system runs, by the id of its boot: in a container, too. Its file is
// locked as long as its process lives, which holds for all containers of a host; where the disk has no locks, the number
// and the start of the process, and the space of that number, are one process and no other. What other hosts say of a lock
// is not asked for: disks of a network have it from a server, which may keep it for a host that is gone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/file.hpp"

namespace muster {

class RunFolder {
 public:
  explicit RunFolder(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  std::string config() const { return path_ + "/config.toml"; }
  std::string description() const { return path_ + "/run.json"; }
  std::string metrics() const { return path_ + "/metrics.jsonl"; }
  std::string checkpoints() const { return path_ + "/checkpoints"; }
  std::string attempts() const { return path_ + "/attempts"; }
  std::string log(int rank) const { return path_ + "/log/rank-" + std::to_string(rank) + ".log"; }

  // Makes the folder and those in it.
  void create() const;
  // Throws UserError unless the folder is missing or empty (--run.fresh).
  void require_empty() const;
  // Throws UserError unless a run was started here.
  void require_run() const;

 private:
  std::string path_;
};

class Attempt {
 public:
  static constexpr std::int64_t most = 999'999'999;  // a start a second for thirty years

  struct Holder {
    std::int64_t number = 0;
    std::string host;
    std::int64_t pid = 0;
    bool told = false;   // who it is; otherwise it began just now, or died when it did
    bool alive = false;  // another process, which lives on this host; of other hosts that is not known
    bool here = true;    // its pid is one of this container's
  };

  // Takes the next number in an existing run folder. `of_checkpoints` is the largest attempt that its checkpoints name:
  // where they were copied without attempts/, a lower number would make them later than any new ones. For one rank, which
  // keeps the attempt while it lives; the others join() its number.
  [[nodiscard]] static Attempt begin(const RunFolder& folder, std::int64_t of_checkpoints = 0);
  // The same, unless another has begun after number `newest`: of those that start at the same moment, one does.
  [[nodiscard]] static std::optional<Attempt> begin_after(const RunFolder& folder, std::int64_t newest,
                                                          std::int64_t of_checkpoints = 0);
  // Throws UserError when this rank's run folder is another: one on its own host, say.
  static Attempt join(const RunFolder& folder, std::int64_t number);

  // The newest attempt of a run that may not have any, nor a folder.
  static std::optional<Holder> newest(const RunFolder& folder);

  std::int64_t number() const { return number_; }
  // The attempt before this one, if any: whom this one takes the run over from.
  std::optional<Holder> previous() const;
  bool still_current() const;
  // Throws UserError naming the newer attempt unless still_current().
  void check_current() const;

 private:
  Attempt(const RunFolder& folder, std::int64_t number) : folder_(folder), number_(number) {}
  std::string file(std::int64_t number) const;
  bool exists(std::int64_t number) const;
  std::optional<Holder> holder(std::int64_t number) const;

  RunFolder folder_;
  std::int64_t number_;
  File lock_;
};

}  // namespace muster
