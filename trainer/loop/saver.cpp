#include "trainer/loop/saver.hpp"

#include <chrono>
#include <utility>

#include "comm/agree.hpp"
#include "core/text.hpp"
#include "trainer/checkpoint/folder.hpp"
#include "trainer/checkpoint/model_tensors.hpp"
#include "trainer/checkpoint/save.hpp"

namespace muster {

Saver::Saver(const Place& place, const Config& config, const RunPlan& plan, ModelState& state,
             const Buffer& copy, RunState about)
    : place_(place), config_(config), plan_(plan), state_(state), copy_(copy), about_(std::move(about)) {}

void Saver::save(const Position& position, bool older_may_go) {
  Communicator& comm = place_.comm;
  agree(comm, "writing the metrics", [&] {
    const Pulse::Work work = comm.pulse().writing("writing the metrics");
    if (place_.metrics != nullptr) place_.metrics->sync();
  });
  about_.position = position;
  CheckpointRequest request;
  request.folder = place_.folder.checkpoints();
  request.step = position.step;
  request.attempt = place_.attempt.number();
  request.state = to_json(about_, config_);
  request.check_current = [&] { place_.attempt.check_current(); };
  request.warn = [&](const std::string& line) { place_.log.warn(line); };
  request.make_room = [&] {
    if (older_may_go) remove_old_checkpoints();
  };
  const auto start = std::chrono::steady_clock::now();
  const SavedCheckpoint saved = save_checkpoint(comm, request, slices(plan_, state_, copy_));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  agree(comm, "removing old checkpoints", [&] {
    if (comm.rank() != 0) return;
    const Pulse::Work work = comm.pulse().writing("removing old checkpoints", saved.bytes);
    place_.log.info("saved {} ({}, {:.1f} s)", saved.path, human_bytes(saved.bytes), seconds.count());
    if (older_may_go) remove_old_checkpoints();
  });
}

void Saver::remove_old_checkpoints() const {
  place_.attempt.check_current();  // a newer one may be reading what this one would remove
  keep_newest(
      place_.folder.checkpoints(), config_.checkpoint.keep, place_.attempt.number(),
      [&](const std::string& line) { place_.log.warn(line); }, [&] { place_.comm.pulse().beat(); });
}

}  // namespace muster
