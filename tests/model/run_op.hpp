// Runs one op on a device as a plan would, on guarded memory that starts as NaN.
#pragma once

#include <algorithm>
#include <cstring>
#include <gtest/gtest.h>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "core/tensor.hpp"
#include "model/ops/kernel.hpp"
#include "tests/model/test_device.hpp"

namespace muster::testing {

// Host memory of exactly `bytes`, filled with 0xff (NaN in every float type), with canaries before and behind it. A
// device has a copy of all of it.
class GuardedMemory {
 public:
  explicit GuardedMemory(std::uint64_t bytes)
      : bytes_(bytes), pages_((bytes + sizeof(Page) - 1) / sizeof(Page) + 2) {
    std::memset(pages_.data(), canary, pages_.size() * sizeof(Page));
    std::memset(data(), 0xff, bytes_);
  }
  std::byte* data() { return pages_[1].bytes; }
  const std::byte* data() const { return pages_[1].bytes; }
  std::uint64_t bytes() const { return bytes_; }
  std::span<std::byte> with_canaries() { return std::as_writable_bytes(std::span(pages_)); }
  bool intact() const {
    const std::byte* all = pages_[0].bytes;
    const auto untouched = [](std::byte byte) { return byte == std::byte{canary}; };
    return std::all_of(all, data(), untouched) &&
           std::all_of(data() + bytes_, all + pages_.size() * sizeof(Page), untouched);
  }

 private:
  static constexpr unsigned char canary = 0xa5;
  struct alignas(4096) Page {
    std::byte bytes[4096];
  };
  std::uint64_t bytes_;
  std::vector<Page> pages_;
};

// Guarded memory's copy on a device.
class DeviceCopy {
 public:
  DeviceCopy(TestDevice& device, GuardedMemory& host)
      : device_(&device), host_(&host), buffer_(device.buffer(host.with_canaries().size())) {
    device_->stream().copy(buffer_.data(), host.with_canaries().data(), host.with_canaries().size());
  }
  std::byte* data() { return buffer_.data() + (host_->data() - host_->with_canaries().data()); }
  void fetch() {
    device_->stream().copy(host_->with_canaries().data(), buffer_.data(), host_->with_canaries().size());
  }

 private:
  TestDevice* device_;
  GuardedMemory* host_;
  Buffer buffer_;
};

// A tensor with memory of its own. A default one stands for an absent optional input.
class TestTensor {
 public:
  TestTensor() : memory_(0) {}
  explicit TestTensor(TensorType type) : type_(std::move(type)), memory_(type_.bytes()), present_(true) {}
  // Rounds the values to the type.
  TestTensor(TensorType type, std::span<const double> values) : TestTensor(std::move(type)) { fill(values); }

  const TensorType& type() const { return type_; }
  bool present() const { return present_; }
  TensorView view() { return present_ ? TensorView{memory_.data(), &type_} : TensorView{nullptr, &type_}; }
  GuardedMemory& memory() { return memory_; }
  std::span<std::byte> bytes() { return {memory_.data(), memory_.bytes()}; }
  std::span<const std::byte> bytes() const { return {memory_.data(), memory_.bytes()}; }
  bool intact() const { return memory_.intact(); }
  bool same_bits(const TestTensor& other) const {
    return type_ == other.type_ && std::ranges::equal(bytes(), other.bytes());
  }

  void fill(std::span<const double> values) {
    check(static_cast<std::int64_t>(values.size()) == type_.elements(), "as many values as elements");
    std::byte* at = memory_.data();
    for (const double value : values) {
      visit([&](auto like) {
        decltype(like) rounded;
        if constexpr (std::is_same_v<decltype(like), bf16>)
          rounded = bf16(static_cast<float>(value));
        else
          rounded = static_cast<decltype(like)>(value);
        std::memcpy(at, &rounded, sizeof rounded);
        at += sizeof rounded;
      });
    }
  }

  std::vector<double> values() const {
    std::vector<double> values(static_cast<std::size_t>(present_ ? type_.elements() : 0));
    const std::byte* at = memory_.data();
    for (double& value : values) {
      visit([&](auto like) {
        std::memcpy(&like, at, sizeof like);
        at += sizeof like;
        if constexpr (std::is_same_v<decltype(like), bf16>)
          value = static_cast<double>(static_cast<float>(like));
        else
          value = static_cast<double>(like);
      });
    }
    return values;
  }

 private:
  template <class Body>
  void visit(Body&& body) const {
    switch (type_.dtype) {
      case DType::f32:
        return body(float{});
      case DType::f64:
        return body(double{});
      case DType::bf16:
        return body(bf16{});
      case DType::i32:
        return body(std::int32_t{});
      default:
        throw Defect("test tensors of this type are not needed yet");
    }
  }

  TensorType type_;
  GuardedMemory memory_;
  bool present_ = false;
};

struct RunOptions {
  StepScalars scalars{};
  std::uint32_t random_key = 0;
  bool accumulate = false;
  int threads = 0;         // 0: as many as the calling thread uses anyway
  int in_place = -1;       // this output takes the memory of the input that op.may_overwrite names
  int changed_input = -1;  // an input that the op writes on purpose (a KV cache)
  // What accumulated outputs start from; empty: NaN.
  std::vector<std::vector<double>> start{};
};

inline std::vector<TensorType> types_of(std::span<const TestTensor> tensors) {
  std::vector<TensorType> types;
  for (const TestTensor& tensor : tensors) types.push_back(tensor.type());
  return types;
}

// The outputs of `op`, typed by op.infer unless `output_types` says otherwise. Inputs must survive unchanged,
// and nothing may be written outside of outputs and workspace.
inline std::vector<TestTensor> run_op(TestDevice& device, const Op& op, std::vector<TestTensor>& inputs,
                                      const RunOptions& options = {},
                                      std::optional<std::vector<TensorType>> output_types = std::nullopt) {
  const std::string name(op.name());
  const auto found = device.backend().kernels.find(op.name());
  check(found != device.backend().kernels.end(), "the backend has a kernel of this name");
  const Kernel& kernel = found->second;

  const int threads_before = thread_count();
  if (options.threads > 0) set_thread_count(options.threads);
  const std::vector<TensorType> input_types = types_of(inputs);
  const std::vector<TensorType> types = output_types ? *output_types : op.infer(input_types);
  std::vector<TestTensor> outputs;
  for (const TensorType& type : types) outputs.emplace_back(type);
  for (std::size_t i = 0; i < options.start.size(); ++i)
    if (!options.start[i].empty()) outputs[i].fill(options.start[i]);

  const std::vector<TestTensor> before = inputs;
  std::vector<DeviceCopy> copies;
  const auto views_of = [&](std::vector<TestTensor>& tensors) {
    std::vector<TensorView> views;
    for (TestTensor& tensor : tensors) {
      views.push_back({nullptr, &tensor.type()});
      if (tensor.present()) views.back().data = copies.emplace_back(device, tensor.memory()).data();
    }
    return views;
  };
  const std::vector<TensorView> input_views = views_of(inputs);
  std::vector<TensorView> output_views = views_of(outputs);
  int overwritten = -1;
  if (options.in_place >= 0) {
    const auto output = static_cast<std::size_t>(options.in_place);
    overwritten = op.may_overwrite(options.in_place);
    const auto input = static_cast<std::size_t>(overwritten);
    check(overwritten >= 0 && inputs[input].present() && inputs[input].type() == types[output],
          "the output may take the memory of an input like it");
    output_views[output].data = input_views[input].data;
  }

  const std::uint64_t asked = kernel.workspace ? kernel.workspace(op, input_types, types, thread_count()) : 0;
  GuardedMemory workspace(asked);
  DeviceCopy& workspace_copy = copies.emplace_back(device, workspace);
  const OnDevice<StepScalars> scalars(device, std::span(&options.scalars, 1));
  device.run([&](NativeStream stream) {
    kernel.run(op, {input_views, output_views, asked > 0 ? workspace_copy.data() : nullptr, scalars.data(),
                    options.random_key, options.accumulate, stream, device.backend().context.get()});
  });
  set_thread_count(threads_before);
  for (DeviceCopy& copy : copies) copy.fetch();
  device.stream().synchronize();

  EXPECT_TRUE(workspace.intact()) << name << " wrote outside of its workspace of " << asked << " bytes";
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_TRUE(inputs[i].intact()) << name << " wrote outside of input " << i;
    if (static_cast<int>(i) != overwritten && static_cast<int>(i) != options.changed_input) {
      EXPECT_TRUE(inputs[i].same_bits(before[i])) << name << " changed input " << i;
    }
  }
  for (std::size_t i = 0; i < outputs.size(); ++i)
    EXPECT_TRUE(outputs[i].intact()) << name << " wrote outside of output " << i;
  if (overwritten >= 0)
    std::ranges::copy(inputs[static_cast<std::size_t>(overwritten)].bytes(),
                      outputs[static_cast<std::size_t>(options.in_place)].bytes().begin());
  return outputs;
}

// On the CPU.
inline std::vector<TestTensor> run_op(const Op& op, std::vector<TestTensor>& inputs,
                                      const RunOptions& options = {},
                                      std::optional<std::vector<TensorType>> output_types = std::nullopt) {
  TestDevice cpu(DeviceKind::cpu);
  return run_op(cpu, op, inputs, options, std::move(output_types));
}

}  // namespace muster::testing
