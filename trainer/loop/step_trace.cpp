#include "trainer/loop/step_trace.hpp"

#include <chrono>
#include <exception>
#include <utility>

#include "comm/agree.hpp"

namespace muster {
namespace {

// A collective that has failed has ended: whoever waits for it has the error to tell.
bool has_ended(const Event& event) {
  try {
    return event.complete();
  } catch (const std::exception&) {
    return true;
  }
}

}  // namespace

TracedCommunicator::TracedCommunicator(Communicator& comm) : comm_(comm), watcher_([this] { watch(); }) {}

TracedCommunicator::~TracedCommunicator() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  watcher_.join();
}

void TracedCommunicator::begin() {
  const std::lock_guard lock(mutex_);
  noting_ = true;
}

std::vector<TraceRecord> TracedCommunicator::take() {
  std::unique_lock lock(mutex_);
  noting_ = false;
  changed_.wait(lock, [&] { return pending_.empty(); });
  return std::exchange(records_, {});
}

Event TracedCommunicator::noted(const std::string& what, const Event& after, Event done) {
  {
    const std::lock_guard lock(mutex_);
    if (!noting_) return done;
    pending_.push_back({what, after, done, 0});
  }
  changed_.notify_all();
  return done;
}

void TracedCommunicator::watch() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || !pending_.empty(); });
    if (stopping_) return;
    for (auto note = pending_.begin(); note != pending_.end();) {
      if (note->begin == 0 && has_ended(note->after)) note->begin = steady_seconds();
      if (note->begin == 0 || !has_ended(note->done)) {
        ++note;
        continue;
      }
      records_.push_back({Track::communication, note->what, note->begin, steady_seconds(),
                          note->what.substr(0, note->what.find(','))});
      note = pending_.erase(note);
    }
    if (pending_.empty())
      changed_.notify_all();
    else
      changed_.wait_for(lock, std::chrono::microseconds(20));
  }
}

std::vector<TraceRecord> trace_of(const Plan& plan, const std::vector<StepTimes>& times) {
  std::vector<TraceRecord> records;
  for (const StepTimes& time : times) {
    const Node& node = plan.node(plan.steps[time.step]);
    const std::string op(node.op->name());
    records.push_back({Track::compute, node.scope + "." + op, time.begin(), time.end(), op});
  }
  return records;
}

StepTrace::StepTrace(Communicator& devices, std::string path) : devices_(devices), path_(std::move(path)) {}

std::vector<StepTimes>* StepTrace::begin() {
  devices_.begin();
  return &times_;
}

void StepTrace::write(const Plan& plan, Communicator& hosts) {
  std::vector<TraceRecord> records = trace_of(plan, times_);
  for (TraceRecord& record : devices_.take()) records.push_back(std::move(record));
  agree(hosts, "writing the trace", [&] { write_trace(path_, records, hosts.rank()); });
}

}  // namespace muster
