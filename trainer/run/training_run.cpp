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
#include "trainer/run/data_limits.hpp"
#include "trainer/run/fitting_plan.hpp"
#include "trainer/run/living_attempt.hpp"
#include "trainer/run/matrix_peak.hpp"
#include "trainer/run/rank_machine.hpp"
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
  const std::string quota = describe_quota();
  return fmt::format(
      "instruction set {}{}, {} thread{} a rank{}", spelling(used),
      used == best ? "" : fmt::format(" (MUSTER_INSTRUCTION_SET; there is {})", spelling(best)),
      thread_count(), thread_count() == 1 ? "" : "s", quota.empty() ? "" : "; " + quota);
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
  void record_evaluation();
  void tell_evaluation() const;
  void refuse_to_waste();
  void save();
  void remove_old_checkpoints();
  bool evaluate();
  bool wants_to_stop(std::int64_t step) const { return host_.stop_requested(step) || time_is_up(); }
  bool any_rank(bool wish, const char* what) { return least_of_ranks(comm_, wish ? 0 : 1, what) == 0; }
  void tell_unsaved() const { host_.unsaved(progress_.step - std::max<std::int64_t>(saved_step_, 0)); }
  bool rank_0() const { return comm_.rank() == 0; }
  Warn warn() const {
    return [this](const std::string& line) { log_->warn("{}", line); };
  }
  std::function<void()> beat() const {
    return [this] { comm_.pulse().beat(); };
  }
  bool time_is_up() const {
    return config_.run.time_limit > 0 && seconds_since(start_) > config_.run.time_limit;
  }

  const Clock::time_point start_ = Clock::now();
  Config config_;
  const RunHost& host_;
  Communicator& comm_;  // of the hosts
  Machine& machine_;
  RunData data_;
  const Config told_;  // config_ as it is kept in the run, for any number of ranks
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
  std::optional<Watchdog> device_watchdog_;  // where the devices have a communicator of their own
  Progress progress_;
  std::optional<TracedCommunicator> traced_;  // of the devices, where a step is to be traced
  std::optional<TrainingStep> step_;
  std::optional<Evaluation> evaluation_;
  std::optional<MetricsFile> metrics_;
  StepRecord recorded_;  // there last
  TimeLeft time_left_;
  std::int64_t skipped_ = 0, merged_documents_ = 0;
  std::int64_t empty_ = 0, empty_in_a_row_ = 0;  // of the skipped: without any target
  std::int64_t diverged_ = 0;                    // steps in a row whose loss or gradient was not finite
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
      told_(std::exchange(config_, for_ranks(config_, comm_.size()))),
      fingerprint_(agree_on_fingerprint()),
      plan_(fitting_plan(told_, host.ranks, machine_, data_.memory(config_))),
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
    data_.refuse_single_tokens(config_, Split::train);
    if (config_.eval.every > 0) data_.refuse_single_tokens(config_, Split::validation);
    std::optional<Checkpoint> checkpoint;
    try {
      if (newest) checkpoint = Checkpoint::open(checkpoint_path(folder, *newest), Trust::sizes);
    } catch (const UserError&) {
      checkpoint.reset();
    }
    std::int64_t step = 0;
    if (checkpoint) step = state_to_resume(*checkpoint, config_, data_).progress.step;
    // Of parameters and both moments; better now than after the first hours.
    if (step < config_.train.steps)
      check_room(folder, 12 * static_cast<std::uint64_t>(plan_.parameters()), next_attempt,
                 removable_bytes(folder, config_.checkpoint.keep));
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
  if (!config_.run.takeover) refuse_while_another_lives(comm_, folder_);
  const std::int64_t mine = agree(comm_, "taking the run's folder", [&]() -> std::int64_t {
    if (!rank_0()) return 0;
    const Pulse::Work work = comm_.pulse().writing("taking the run's folder");
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
  comm_.pulse().set_log(folder_.log(comm_.rank()));
  if (&host_.ranks.device != &comm_) host_.ranks.device.pulse().set_log(folder_.log(comm_.rank()));
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
  for (const std::string& line : limits_of_training(training_loader_, config_)) log_->info("{}", line);
}

void TrainingRun::prepare_evaluation() {
  validation_loader_.emplace(data_.validation(config_, machine_.host_account()));
  if (rank_0())
    for (const std::string& line : limits_of_evaluation(*validation_loader_, config_)) log_->info("{}", line);
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
    const Pulse::Work work = comm_.pulse().work("drawing the first parameters");
    state_.initialise(plan_, static_cast<std::uint64_t>(config_.run.seed));
    if (rank_0()) log_->info("a new run in {}", folder_.path());
  }
  check_replicas(state_, comm_);
  state_.refresh_compute({0, plan_.training.space.elements});
  const std::vector<std::string> hosts = gather_strings(comm_, host_name(), "host names");
  agree(comm_, "writing the run's folder", [&] {
    if (!rank_0()) return;
    const Pulse::Work work = comm_.pulse().writing("writing the run's folder");
    // Reading a checkpoint takes time, in which another attempt may have begun.
    attempt_.check_current();
    remove_leftovers(folder_.checkpoints(), attempt_.number(), warn(), beat());
    write_text_atomically(folder_.config(), to_toml(told_));
    comm_.pulse().beat();
    attempt_.check_current();
    write_text_atomically(folder_.description(),
                          describe_run(attempt_.number(), hosts, machine_.device().name(), fingerprint_));
    comm_.pulse().beat();
    attempt_.check_current();
    metrics_.emplace(folder_.metrics(), progress_.step);
    if (!metrics_->remark().empty()) log_->warn("{}", metrics_->remark());
  });
}

bool TrainingRun::resume() {
  const std::optional<std::int64_t> newest =
      newest_complete(comm_, folder_.checkpoints(), Trust::full, warn());
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
  // Asked before its first step, it has nothing new to save. (A time limit lets each start get on by a step.)
  result.interrupted = progress_.step < config_.train.steps &&
                       any_rank(host_.stop_requested(progress_.step), "signals of the start");
  if (rank_0() && progress_.step < config_.train.steps && !result.interrupted)
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
  if (may_start()) step_->request(prefetch_, started);
  sent_before_ = host_.ranks.device.bytes_sent();
  Clock::time_point recorded = Clock::now(), finished = recorded;
  while (may_start() || step_->pending() > 0) {
    // A device is at a step that was started before the one before it ended.
    const Clock::time_point start = step_->pending() > 0 ? finished : Clock::now();
    for (; may_start(); ++started) {
      for (Communicator* comm : {&comm_, &host_.ranks.device}) comm->pulse().set_step(started + 1);
      if (started + 1 < config_.train.steps) step_->request(prefetch_, started + 1);
      const double lr =
          learning_rate(config_.schedule, config_.optimizer.lr, config_.train.steps, started + 1);
      const bool traced = started + 1 == host_.traced_step;
      if (traced) traced_->begin();
      step_->start(
          prefetch_, lr, [&] { return wants_to_stop(started + 1); }, traced ? &times_ : nullptr);
      ++steps_taken_;
    }
    const StepResult step = step_->finish(progress_);
    finished = Clock::now();
    const double step_seconds = std::chrono::duration<double>(finished - start).count();
    if (progress_.step == host_.traced_step) write_step_trace();
    const bool last = progress_.step == config_.train.steps;
    result.interrupted = (result.interrupted || step.stop) && !last;
    tell_unsaved();
    // Whoever asks to stop may wait for a save, not for all of the held-out text.
    const bool evaluates =
        !result.interrupted && (evaluates_after(progress_.step) || (last && config_.eval.every > 0));
    if (rank_0() && result.interrupted && evaluates_after(progress_.step))
      log_->info("asked to stop: the evaluation after step {} is left out", progress_.step);
    const auto ends = [&] { return last || (result.interrupted && step_->pending() == 0); };
    const bool pauses = evaluates || ends() || saves_after(progress_.step);
    if (pauses) settle();
    if (evaluates && !last && !evaluate()) result.interrupted = true;
    record(step, step_seconds, seconds_since(std::exchange(recorded, Clock::now())));
    refuse_to_waste();
    if (ends() || saves_after(progress_.step)) {
      save();
      // Who was asked meanwhile need not take another step.
      if (!ends())
        result.interrupted =
            result.interrupted || any_rank(wants_to_stop(progress_.step), "signals of a save");
    }
    // With its records saved, a run at its end may be ended: an evaluation can take long.
    if (evaluates && last && evaluate()) record_evaluation();
    if (pauses) sent_before_ = host_.ranks.device.bytes_sent();
  }
  if (comm_.size() > 1 && steps_taken_ > 0)
    log_->info("sent {} bytes in a step, planned {}", sent_ / steps_taken_, plan_.bytes_sent_per_step);
  if (merged_documents_ > 0)
    log_->warn(
        "a sample keeps at most {} documents apart: {} more, of this rank, were joined to the one before "
        "them",
        Loader::max_documents(1, training_loader_.options()), merged_documents_);
  if (rank_0()) {
    if (skipped_ > empty_)
      log_->warn("{} steps were skipped: their loss or gradient was not finite", skipped_ - empty_);
    if (empty_ > 0) log_->warn("{} steps were skipped: their batches held no target", empty_);
    log_->info("{} after step {} of {}; memory: planned {} + runtime {}, held {}",
               result.interrupted ? "stopped" : "done", progress_.step, config_.train.steps,
               human_bytes(plan_.total_bytes()), human_bytes(runtime_bytes_),
               human_bytes(machine_.device().held_bytes()));
  }
  agree(comm_, "looking at what was trained", [&] {
    if (steps_taken_ > 0 && progress_.step == config_.train.steps && progress_.updates == 0)
      throw UserError(
          "none of the {} steps changed the model (the lines before say why): start another run.dir, with "
          "other text "
          "or a smaller optimizer.lr",
          progress_.step);
  });
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

// False where a rank was asked to stop before its end.
bool TrainingRun::evaluate() {
  const EvaluationResult result =
      evaluation_->run(state_.inference(), [this] { return wants_to_stop(progress_.step); });
  if (result.stopped) {
    if (rank_0()) log_->info("asked to stop: the evaluation after step {} is not finished", progress_.step);
    return false;
  }
  evaluated_ = result;
  fresh_eval_loss_ = evaluated_.loss;
  return true;
}

void TrainingRun::record(const StepResult& result, double step_seconds, double total_seconds) {
  skipped_ += result.skipped ? 1 : 0;
  diverged_ = result.skipped && result.targets > 0 ? diverged_ + 1 : 0;
  empty_ += result.targets == 0 ? 1 : 0;
  empty_in_a_row_ = result.targets == 0 ? empty_in_a_row_ + 1 : 0;
  merged_documents_ += result.merged_documents;
  if (!rank_0()) return;
  const Pulse::Work work = comm_.pulse().writing("writing the metrics");
  StepRecord& record = recorded_;
  const auto tokens = static_cast<double>(config_.train.batch * config_.train.sequence);
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
  if (result.targets == 0)
    log_->warn("step {} is skipped: its batch holds no target, each document in it is a single token",
               record.step);
  log_->info("{}", progress_line(record, config_.train.steps,
                                 time_left_.after_step(record.step, config_.train.steps, total_seconds)));
  if (record.eval_loss) tell_evaluation();
}

// After that of the step.
void TrainingRun::record_evaluation() {
  if (!rank_0()) return;
  const Pulse::Work work = comm_.pulse().writing("writing the metrics");
  recorded_.eval_loss = std::exchange(fresh_eval_loss_, std::nullopt);
  attempt_.check_current();
  metrics_->amend(recorded_);
  tell_evaluation();
}

void TrainingRun::tell_evaluation() const {
  const auto bits = evaluated_.bits_per_byte(data_.info());
  log_->info("held out: loss {:.4f}, perplexity {:.2f}{}", evaluated_.loss, evaluated_.perplexity(),
             bits ? fmt::format(", {:.3f} bits per byte", *bits) : "");
}

// Skipped steps change no parameter: where every batch ends so, it will for ever.
void TrainingRun::refuse_to_waste() {
  constexpr std::int64_t most = 100;
  if (std::max(diverged_, empty_in_a_row_) < most) return;
  agree(comm_, "looking at the loss", [&] {
    if (empty_in_a_row_ >= most)
      throw UserError(
          "the batches of the last {} steps, to {}, held no target, each document in them is a single token: "
          "prepare other text",
          most, progress_.step);
    throw UserError(
        "the loss or gradient of the last {} steps, to {}, was not finite: the run has diverged; start "
        "another run.dir with a smaller optimizer.lr or a longer schedule.warmup",
        most, progress_.step);
  });
}

void TrainingRun::save() {
  if (saved_step_ == progress_.step) return;
  agree(comm_, "writing the metrics", [&] {
    const Pulse::Work work = comm_.pulse().writing("writing the metrics");
    if (rank_0()) metrics_->sync();
  });
  CheckpointRequest request;
  request.folder = folder_.checkpoints();
  request.step = progress_.step;
  request.attempt = attempt_.number();
  request.state = to_json(
      {progress_, to_toml(told_), data_.info().tokenizer, fingerprint_, data_.identities(config_)}, config_);
  request.still_current = [&] { return attempt_.still_current(); };
  request.warn = warn();
  request.make_room = [&] { remove_old_checkpoints(); };
  const Clock::time_point start = Clock::now();
  const SavedCheckpoint saved = save_checkpoint(comm_, request, slices(plan_, state_, snapshot_));
  saved_step_ = progress_.step;
  tell_unsaved();
  agree(comm_, "removing old checkpoints", [&] {
    if (!rank_0()) return;
    const Pulse::Work work = comm_.pulse().writing("removing old checkpoints", saved.bytes);
    log_->info("saved {} ({}, {:.1f} s)", saved.path, human_bytes(saved.bytes), seconds_since(start));
    remove_old_checkpoints();
  });
}

void TrainingRun::remove_old_checkpoints() {
  if (diverged_ > 0) return;  // the older ones may be the last that are worth anything
  attempt_.check_current();   // a newer one may be reading what this one would remove
  keep_newest(folder_.checkpoints(), config_.checkpoint.keep, attempt_.number(), warn(), beat());
}

}  // namespace

RunResult run_training(Config config, const RunHost& host) {
  TrainingRun run(std::move(config), host);
  return ending_job_when_alone(host.ranks.host, [&] { return run.run(); });
}

}  // namespace muster
