// metrics.jsonl: one JSON object a step, numbers with all the digits they need to come back exactly.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/file.hpp"

namespace muster {

struct StepRecord {
  std::int64_t step = 0;
  std::int64_t attempt = 0;
  double loss = 0;       // mean over the valid targets of the global batch
  double grad_norm = 0;  // before clipping
  double lr = 0;
  std::int64_t samples = 0;  // sequences consumed since the run began
  std::int64_t targets = 0;  // valid ones of this step
  bool skipped = false;      // no update: a loss or norm that is not finite, or no target
  double seconds = 0;        // of the step, without evaluation and saving
  double tokens_per_s = 0;
  double sol = 0;  // fraction of the least time that the matrix products take; 0: peak unknown
  double wait_data_ms = 0;
  double wait_comm_ms = 0;
  std::optional<double> eval_loss = {};  // if this step was followed by an evaluation
};

// One line without its end. A number that is not finite becomes null, for JSON knows no other way.
std::string to_json_line(const StepRecord& record);

class MetricsFile {
 public:
  // Opens `path` to append, with one record of each step up to `last_step`, in order: the one of the latest attempt where a
  // step stands twice. What is removed, is removed in a new file that takes the name, so an attempt that still lives keeps
  // writing to the old one and not into this. Lines that are no records are kept beside it, in PATH.damaged.
  MetricsFile(const std::string& path, std::int64_t last_step);

  // What was wrong with the file and what was done, for the log; empty if nothing was. A torn last line is what a kill
  // leaves, and not told.
  const std::string& remark() const { return remark_; }

  // In one write, so that a reader sees whole lines.
  void append(const StepRecord& record);
  // The same step once more, of which more is known, in place of the line that append() wrote last. A kill leaves one or
  // the other.
  void amend(const StepRecord& record);
  // Before a checkpoint, which lasts: a run that goes on from it never writes the steps before it again.
  void sync() { file_.sync(); }

 private:
  std::string path_, remark_;
  File file_;
};

}  // namespace muster
