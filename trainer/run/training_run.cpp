#include "trainer/run/training_run.hpp"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>
#include <memory>
#include <numeric>
#include <optional>
#include <spdlog/spdlog.h>
#include <utility>

#include "comm/agree.hpp"
#include "comm/watchdog.hpp"
#include "core/error.hpp"
#include "core/host.hpp"
#include "core/instruction_set.hpp"
#include "core/parallel.hpp"
#include "core/text.hpp"
#include "trainer/build_info.hpp"
#include "trainer/checkpoint/folder.hpp"
#include "trainer/checkpoint/save.hpp"
#include "trainer/config/read.hpp"
#include "trainer/failure.hpp"
#include "trainer/metrics/log.hpp"
#include "trainer/metrics/metrics_file.hpp"
#include "trainer/metrics/progress.hpp"
#include "trainer/plan/memory_check.hpp"
#include "trainer/plan/report.hpp"
#include "trainer/run/fitting_plan.hpp"
#include "trainer/run/matrix_peak.hpp"
#include "trainer/run/ranks_alike.hpp"
#include "trainer/run/resume.hpp"
#include "trainer/run/run_data.hpp"
#include "trainer/run/snapshot.hpp"
#include "trainer/run/step_trace.hpp"
#include "trainer/run_folder.hpp"
#include "trainer/schedule.hpp"

namespace muster {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// What this rank computes with, where that is the processor.
std::string describe_cores() {
  const InstructionSet best = instruction_sets_of_processor().back(), used = instruction_set();
  return fmt::format(
      "instruction set {}{}, {} thread{} a rank", spelling(used),
      used == best ? "" : fmt::format(" (MUSTER_INSTRUCTION_SET; there is {})", spelling(best)),
      thread_count(), thread_count() == 1 ? "" : "s");
}

class TrainingRun {
 public:
  TrainingRun(Config config, const RunHost& host);
  RunResult run();

 private:
  std::string agree_on_fingerprint() const;
  void refuse_what_cannot_go_on() const;
  Attempt begin_attempt();
  std::shared_ptr<spdlog::logger> open_log();
  void tell_data() const;
  void prepare_evaluation();
  void start_or_resume();
  bool resume();
  bool evaluates_after(std::int64_t step) const {
    return config_.eval.every > 0 && step % config_.eval.every == 0;
  }
  bool saves_after(std::int64_t step) const {
    return config_.checkpoint.every > 0 && step % config_.checkpoint.every == 0;
  }
  void settle();
  void write_step_trace();
  void record(const StepResult& result, double step_seconds, double total_seconds);
  void refuse_to_waste();
  void save();
  void evaluate();
  bool rank_0() const { return comm_.rank() == 0; }
  bool time_is_up() const {
    return config_.run.time_limit > 0 && seconds_since(start_) > config_.run.time_limit;
  }

  const Clock::time_point start_ = Clock::now();
  Config config_;
  const RunHost& host_;
  Communicator& comm_;  // of the hosts
  Machine& machine_;
  RunData data_;
  std::uint64_t runtime_bytes_ = machine_.device().held_bytes();
  std::string fingerprint_;
  RunPlan plan_;
  // Taken only by a run that can begin: an attempt ends the one before it.
  RunFolder folder_;
  Attempt attempt_;
  std::shared_ptr<spdlog::logger> log_;
  Loader training_loader_;
  Prefetch prefetch_;
  std::optional<Loader> validation_loader_;
  MatrixPeak peak_;
  ModelState state_;
  Buffer snapshot_;
  std::optional<Watchdog> watchdog_, device_watchdog_;  // where the devices have a communicator of their own
  Progress progress_;
  std::optional<TracedCommunicator> traced_;  // of the devices, where a step is to be traced
  std::optional<TrainingStep> step_;
  std::optional<Evaluation> evaluation_;
  std::optional<MetricsFile> metrics_;
  TimeLeft time_left_;
  std::int64_t skipped_ = 0, merged_documents_ = 0;
  std::int64_t diverged_ = 0;  // steps in a row whose loss or gradient was not finite
  std::uint64_t steps_taken_ = 0, sent_ = 0, sent_before_ = 0;  // by this process
  std::int64_t saved_step_ = -1;
  EvaluationResult evaluated_;
  std::optional<double> fresh_eval_loss_;
  std::vector<StepTimes> times_;  // of the traced step
};

TrainingRun::TrainingRun(Config config, const RunHost& host)
    : config_(std::move(config)),
      host_(host),
      comm_(host.ranks.host),
      machine_(host.machine),
      data_(agree(comm_, "opening the data", [&] { return RunData(config_); })),
      fingerprint_(agree_on_fingerprint()),
      plan_(fitting_plan(config_, host.ranks, machine_, data_.memory(config_))),
      folder_(config_.run.dir),
      attempt_(begin_attempt()),
      log_(open_log()),
      training_loader_(
          agree(comm_, "opening the data", [&] { return data_.training(config_, machine_.host_account()); })),
      prefetch_(training_loader_, machine_.host_account(), prefetch_depth, config_.train.micro_batch,
                machine_.device().staging()),
      peak_(measure_matrix_peak(config_.run.precision, comm_, machine_)),
      state_(agree(comm_, "taking memory", [&] { return ModelState(plan_, config_, machine_); })),
      snapshot_(agree(comm_, "taking memory", [&] {
        return Buffer(machine_.host_account(), MemoryKind::checkpoint,
                      snapshot_bytes(plan_, machine_.device().kind()));
      })) {
  if (rank_0()) {
    if (!peak_.remark.empty()) log_->warn("{}", peak_.remark);
    tell_data();
  }
  start_or_resume();
  // How long a rank reads files, and others wait for it, says nothing of whether it lives.
  watchdog_.emplace(comm_, config_.run.watchdog);
  if (&host_.ranks.device != &comm_) device_watchdog_.emplace(host_.ranks.device, config_.run.watchdog);
  if (host_.traced_step > 0) traced_.emplace(host_.ranks.device);
  const Ranks ranks{host_.ranks.host, traced_ ? *traced_ : host_.ranks.device};
  step_.emplace(config_, plan_, state_, ranks, progress_);
  if (config_.eval.every > 0) agree(comm_, "preparing the evaluation", [&] { prepare_evaluation(); });
  check_as_planned(machine_.account(), plan_.memory);
  if (!machine_.is_cpu()) check_as_planned(machine_.host_account(), plan_.host_memory);
}

// Bits are promised only where ranks compute alike.
std::string TrainingRun::agree_on_fingerprint() const {
  const std::string mine = fingerprint(machine_.fingerprint());
  const std::vector<std::string> all = gather_strings(comm_, mine, "fingerprints");
  agree(comm_, "comparing fingerprints", [&] {
    if (config_.train.reduction == Reduction::invariant && mine != all[0])
      throw UserError(
          "rank {} on {} runs another binary, libraries or instruction set than rank 0 ({} instead of {}), "
          "and "
          "train.reduction = \"invariant\" wants them alike: start all ranks alike "
          "(MUSTER_INSTRUCTION_SET=avx2 "
          "on all of them, say, where their processors differ), or a new run with \"fast\"",
          comm_.rank(), host_name(), mine, all[0]);
  });
  return mine;
}

// Before the attempt, which ends the one before it: what cannot go on leaves that in peace. A run that lives may save
// and remove checkpoints meanwhile; resume() looks again.
void TrainingRun::refuse_what_cannot_go_on() const {
  const std::string folder = folder_.checkpoints();
  std::optional<std::int64_t> newest;
  if (!config_.run.fresh) newest = newest_complete(comm_, folder, Trust::sizes, [](const std::string&) {});
  agree(comm_, "comparing with the run", [&] {
    std::optional<Checkpoint> checkpoint;
    try {
      if (newest) checkpoint = Checkpoint::open(checkpoint_path(folder, *newest), Trust::sizes);
    } catch (const UserError&) {
      checkpoint.reset();
    }
    std::int64_t step = 0;
    if (checkpoint) step = state_to_resume(*checkpoint, config_, data_).progress.step;
    // Of parameters and both moments; better now than after the first hours.
    if (step < config_.train.steps) check_room(folder, 12 * static_cast<std::uint64_t>(plan_.parameters()));
    if (config_.eval.every > 0 && !data_.has_validation(config_))
      throw UserError(
          "{} holds out no text as long as train.sequence = {}: prepare it with a larger --validation, or "
          "set "
          "eval.every = 0",
          config_.data.sources().front().path, config_.train.sequence);
    if (host_.traced_step > config_.train.steps)
      throw UserError("--trace step={}: the run ends with step {}: name one of its steps", host_.traced_step,
                      config_.train.steps);
  });
}

// Rank 0 takes the number; a run folder belongs to one attempt at a time.
Attempt TrainingRun::begin_attempt() {
  refuse_unlike_ranks(comm_, config_, data_);
  refuse_what_cannot_go_on();
  const std::int64_t mine = agree(comm_, "taking the run's folder", [&]() -> std::int64_t {
    if (!rank_0()) return 0;
    if (config_.run.fresh) folder_.require_empty();
    folder_.create();
    std::int64_t of_checkpoints = 0;
    for (const CheckpointInfo& checkpoint : list_checkpoints(folder_.checkpoints()))
      of_checkpoints = std::max(of_checkpoints, checkpoint.attempt);
    return Attempt::begin(folder_, of_checkpoints).number();
  });
  const std::string number = gather_strings(comm_, std::to_string(mine), "number of the attempt")[0];
  return agree(comm_, "finding the run's folder", [&] { return Attempt::join(folder_, std::stoll(number)); });
}

std::shared_ptr<spdlog::logger> TrainingRun::open_log() {
  auto log = agree(comm_, "opening the log",
                   [&] { return make_log(folder_.log(comm_.rank()), host_.console && rank_0()); });
  if (machine_.is_cpu()) log->info("{}", describe_cores());
  if (!rank_0()) return log;
  if (const auto before = attempt_.previous(); before && before->alive)
    log->info("attempt {} (pid {}) still lives; attempt {} takes the run over", before->number, before->pid,
              attempt_.number());
  log->info("{}", describe(plan_, config_, runtime_bytes_));
  for (const std::string& remark : remarks(plan_.training, machine_.backend())) log->info("{}", remark);
  if (!host_.ranks.joined.empty()) log->info("{}", host_.ranks.joined);
  return log;
}

void TrainingRun::tell_data() const {
  double weights = 0;
  for (const DataSource& source : config_.data.sources()) weights += source.weight;
  const auto wanted = static_cast<double>(config_.train.steps * config_.train.batch);
  for (std::size_t k = 0; const DataSource& source : config_.data.sources()) {
    const auto samples = static_cast<double>(training_loader_.samples(k++));
    log_->info("data: {}, {} samples of {} tokens, {:.2f} epochs in {} steps", source.path,
               human_count(samples), config_.train.sequence, wanted * source.weight / weights / samples,
               config_.train.steps);
    log_->info("data: {}: {}", source.path, data_.describe_checks(k - 1));
  }
  if (const std::int64_t dropped = training_loader_.dropped_tokens(); dropped > 0)
    log_->info("data: {} tokens at the ends of shards fill no sample", dropped);
}

void TrainingRun::prepare_evaluation() {
  validation_loader_.emplace(data_.validation(config_, machine_.host_account()));
  evaluation_.emplace(config_, plan_.evaluation, *validation_loader_, comm_, machine_);
}

// Nothing is under way afterwards, and the plan knew of every byte that was sent.
void TrainingRun::settle() {
  step_->settle();
  machine_.stream().synchronize();
  sent_ += host_.ranks.device.bytes_sent() - sent_before_;
  const std::uint64_t planned = plan_.bytes_sent_per_step * steps_taken_;
  if (sent_ != planned)
    throw Defect(fmt::format("rank {} sent {} bytes in {} steps, the plan says {}", comm_.rank(), sent_,
                             steps_taken_, planned));
}

void TrainingRun::start_or_resume() {
  if (!resume()) {
    state_.initialise(plan_, static_cast<std::uint64_t>(config_.run.seed));
    if (rank_0()) log_->info("a new run in {}", folder_.path());
  }
  check_replicas(state_, comm_);
  state_.refresh_compute({0, plan_.training.space.elements});
  const std::vector<std::string> hosts = gather_strings(comm_, host_name(), "host names");
  agree(comm_, "writing the run's folder", [&] {
    if (!rank_0()) return;
    // Reading a checkpoint takes time, in which another attempt may have begun.
    attempt_.check_current();
    write_text_atomically(folder_.config(), to_toml(config_));
    attempt_.check_current();
    write_text_atomically(folder_.description(),
                          describe_run(attempt_.number(), hosts, machine_.device().name(), fingerprint_));
    attempt_.check_current();
    metrics_.emplace(folder_.metrics(), progress_.step);
    if (!metrics_->remark().empty()) log_->warn("{}", metrics_->remark());
  });
}

bool TrainingRun::resume() {
  const auto warn = [&](const std::string& line) { log_->warn("{}", line); };
  const std::optional<std::int64_t> newest = newest_complete(comm_, folder_.checkpoints(), Trust::full, warn);
  if (!newest) {
    // What cannot be read today may be tomorrow: starting anew would in time remove it.
    agree(comm_, "looking for checkpoints", [&] {
      if (rank_0() && std::ranges::any_of(list_checkpoints(folder_.checkpoints()), &CheckpointInfo::finished))
        throw UserError(
            "{} holds checkpoints and none can be used (the lines before say why): restore one, or choose "
            "another run.dir to start anew",
            folder_.checkpoints());
    });
    return false;
  }
  agree(comm_, "loading the checkpoint", [&] {
    const Checkpoint checkpoint =
        Checkpoint::open(checkpoint_path(folder_.checkpoints(), *newest), Trust::sizes);
    const RunState saved = state_to_resume(checkpoint, config_, data_);
    load(checkpoint, plan_, state_);
    progress_ = saved.progress;
    saved_step_ = progress_.step;
    if (rank_0()) {
      log_->info("resuming from {} (step {} of {})", checkpoint.path(), progress_.step, config_.train.steps);
      if (saved.fingerprint != fingerprint_)
        log_->warn(
            "this binary, its libraries or this processor differ from those that saved {}: bits may differ",
            checkpoint.path());
    }
  });
  return true;
}

RunResult TrainingRun::run() {
  RunResult result;
  if (rank_0() && host_.traced_step > 0 && host_.traced_step <= progress_.step)
    log_->info("step {} is past: it is not traced", host_.traced_step);
  if (rank_0() && progress_.step < config_.train.steps)
    log_->info("{}", progress_heading(config_.train.steps));
  // A CPU's stream has run a step when it has been started; a GPU is given the next one meanwhile, unless the
  // parameters are to be read in between.
  const std::size_t ahead = machine_.is_cpu() ? 1 : most_pending;
  std::int64_t started = progress_.step;
  const auto may_start = [&] {
    return !result.interrupted && started < config_.train.steps && step_->pending() < ahead &&
           (step_->pending() == 0 ||
            !(evaluates_after(started) || saves_after(started) || started == host_.traced_step));
  };
  if (started < config_.train.steps) step_->request(prefetch_, started);
  sent_before_ = host_.ranks.device.bytes_sent();
  Clock::time_point recorded = Clock::now(), finished = recorded;
  while (may_start() || step_->pending() > 0) {
    // A device is at a step that was started before the one before it ended.
    const Clock::time_point start = step_->pending() > 0 ? finished : Clock::now();
    for (; may_start(); ++started) {
      watchdog_->set_step(started + 1);
      if (device_watchdog_) device_watchdog_->set_step(started + 1);
      if (started + 1 < config_.train.steps) step_->request(prefetch_, started + 1);
      const double lr =
          learning_rate(config_.schedule, config_.optimizer.lr, config_.train.steps, started + 1);
      const bool traced = started + 1 == host_.traced_step;
      if (traced) traced_->begin();
      step_->start(prefetch_, lr, host_.stop_requested() || time_is_up(), traced ? &times_ : nullptr);
      ++steps_taken_;
    }
    const StepResult step = step_->finish(progress_);
    finished = Clock::now();
    const double step_seconds = std::chrono::duration<double>(finished - start).count();
    if (progress_.step == host_.traced_step) write_step_trace();
    const bool last = progress_.step == config_.train.steps;
    result.interrupted = (result.interrupted || step.stop) && !last;
    const bool ends = last || (result.interrupted && step_->pending() == 0);
    const bool saves = ends || saves_after(progress_.step);
    // Whoever asks to stop may wait for a save, not for all of the held-out text.
    const bool evaluates =
        !result.interrupted && (evaluates_after(progress_.step) || (last && config_.eval.every > 0));
    if (rank_0() && result.interrupted && evaluates_after(progress_.step))
      log_->info("asked to stop: the evaluation after step {} is left out", progress_.step);
    if (evaluates || saves) settle();
    if (last) save();
    if (evaluates) evaluate();
    record(step, step_seconds, seconds_since(std::exchange(recorded, Clock::now())));
    refuse_to_waste();
    if (saves) save();
    if (evaluates || saves) sent_before_ = host_.ranks.device.bytes_sent();
  }
  if (comm_.size() > 1 && steps_taken_ > 0)
    log_->info("sent {} bytes in a step, planned {}", sent_ / steps_taken_, plan_.bytes_sent_per_step);
  if (merged_documents_ > 0)
    log_->warn(
        "a sample keeps at most {} documents apart: {} more, of this rank, were joined to the one before "
        "them",
        Loader::max_documents(1, training_loader_.options()), merged_documents_);
  if (rank_0()) {
    if (skipped_ > 0) log_->warn("{} steps were skipped: their loss or gradient was not finite", skipped_);
    log_->info("{} after step {} of {}; memory: planned {} + runtime {}, held {}",
               result.interrupted ? "stopped" : "done", progress_.step, config_.train.steps,
               human_bytes(plan_.total_bytes()), human_bytes(runtime_bytes_),
               human_bytes(machine_.device().held_bytes()));
  }
  result.progress = progress_;
  result.evaluation = evaluated_;
  return result;
}

void TrainingRun::write_step_trace() {
  settle();
  std::vector<TraceRecord> records = trace_of(plan_.training, times_);
  for (TraceRecord& record : traced_->take()) records.push_back(std::move(record));
  const std::string path =
      folder_.path() + fmt::format("/trace-step-{}-rank-{}.json", host_.traced_step, comm_.rank());
  agree(comm_, "writing the trace", [&] { write_trace(path, records, comm_.rank()); });
  if (rank_0()) log_->info("wrote {}: open it in ui.perfetto.dev", path);
  sent_before_ = host_.ranks.device.bytes_sent();
}

void TrainingRun::evaluate() {
  evaluated_ = evaluation_->run(state_.inference());
  fresh_eval_loss_ = evaluated_.loss;
}

void TrainingRun::record(const StepResult& result, double step_seconds, double total_seconds) {
  skipped_ += result.skipped ? 1 : 0;
  diverged_ = result.skipped && result.targets > 0 ? diverged_ + 1 : 0;
  merged_documents_ += result.merged_documents;
  if (!rank_0()) return;
  const auto tokens = static_cast<double>(config_.train.batch * config_.train.sequence);
  StepRecord record;
  record.step = progress_.step;
  record.attempt = attempt_.number();
  record.loss = result.loss;
  record.grad_norm = result.grad_norm;
  record.lr = learning_rate(config_.schedule, config_.optimizer.lr, config_.train.steps, progress_.step);
  record.samples = progress_.step * config_.train.batch;
  record.targets = result.targets;
  record.skipped = result.skipped;
  record.seconds = step_seconds;
  record.tokens_per_s = tokens / step_seconds;
  record.sol = speed_of_light(plan_.flops_per_step, peak_.flops_per_s, plan_.ranks, step_seconds);
  record.wait_data_ms = result.wait_data_ms;
  record.wait_comm_ms = 1e3 * std::accumulate(result.waits.begin(), result.waits.end(), 0.0);
  record.eval_loss = std::exchange(fresh_eval_loss_, std::nullopt);
  attempt_.check_current();
  metrics_->append(record);
  log_->info("{}", progress_line(record, config_.train.steps,
                                 time_left_.after_step(record.step, config_.train.steps, total_seconds)));
  if (record.eval_loss) {
    const auto bits = evaluated_.bits_per_byte(data_.info());
    log_->info("held out: loss {:.4f}, perplexity {:.2f}{}", evaluated_.loss, evaluated_.perplexity(),
               bits ? fmt::format(", {:.3f} bits per byte", *bits) : "");
  }
}

// Skipped steps change no parameter: where every batch ends so, it will for ever.
void TrainingRun::refuse_to_waste() {
  constexpr std::int64_t most = 100;
  if (diverged_ < most) return;
  agree(comm_, "looking at the loss", [&] {
    throw UserError(
        "the loss or gradient of the last {} steps, to {}, was not finite: the run has diverged; start "
        "another run.dir with a smaller optimizer.lr or a longer schedule.warmup",
        most, progress_.step);
  });
}

void TrainingRun::save() {
  if (saved_step_ == progress_.step) return;
  agree(comm_, "writing the metrics", [&] {
    if (rank_0()) metrics_->sync();
  });
  CheckpointRequest request;
  request.folder = folder_.checkpoints();
  request.step = progress_.step;
  request.attempt = attempt_.number();
  request.state =
      to_json({progress_, to_toml(config_), data_.info().tokenizer, fingerprint_, data_.identities(config_)},
              config_);
  request.still_current = [&] { return attempt_.still_current(); };
  const Clock::time_point start = Clock::now();
  const SavedCheckpoint saved = save_checkpoint(comm_, request, slices(plan_, state_, snapshot_));
  saved_step_ = progress_.step;
  agree(comm_, "removing old checkpoints", [&] {
    if (!rank_0()) return;
    log_->info("saved {} ({}, {:.1f} s)", saved.path, human_bytes(saved.bytes), seconds_since(start));
    if (diverged_ > 0) return;  // the older ones may be the last that are worth anything
    attempt_.check_current();   // a newer one may be reading what this one would remove
    keep_newest(folder_.checkpoints(), config_.checkpoint.keep, attempt_.number(),
                [&](const std::string& line) { log_->warn("{}", line); });
  });
}

}  // namespace

RunResult run_training(Config config, const RunHost& host) {
  TrainingRun run(std::move(config), host);
  return ending_job_when_alone(host.ranks.host, [&] { return run.run(); });
}

}  // namespace muster
