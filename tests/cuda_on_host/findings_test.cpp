// Each kind of mistake that the stand-in is there to find, made on purpose: a process of its own ends with a report that
// names it. Without the mistake the same scene is silent.
#include <cstdlib>
#include <gtest/gtest.h>

#include "core/cuda/launch.hpp"
#include "core/device.hpp"

namespace muster {
namespace {

constexpr int length = 200;
constexpr int write_line = __LINE__ + 3;
__global__ void write_numbers(float* x) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < length) x[i] = static_cast<float>(i);
}
constexpr int read_line = __LINE__ + 3;
__global__ void double_numbers(float* y, const float* x) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < length) y[i] = 2 * x[i];
}
constexpr int every_block_line = __LINE__ + 2;
__global__ void write_from_every_block(float* x) {
  if (threadIdx.x == 0) x[0] = 1;
}
__global__ void write_past_the_end(float* x, int by) {
  if (threadIdx.x == 0) x[1024 - 1 + by] = 1;
}
constexpr int neighbour_line = __LINE__ + 5;
__global__ void read_a_neighbour(float* x, bool wait) {
  __shared__ float values[64];
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (wait) __syncthreads();
  x[threadIdx.x] = values[63 - threadIdx.x];
}
__global__ void write_past_shared_memory(float* x, int by) {
  MUSTER_DYNAMIC_SHARED(float, values);
  if (threadIdx.x == 0) values[63 + by] = 1;
  __syncthreads();
  if (threadIdx.x == 0) x[0] = values[0];
}
__global__ void wait_in_half_a_warp(float* x) {
  if (threadIdx.x % 32 < 16) x[threadIdx.x] = __shfl_sync(0xffffffffu, 1.0f, 0);
  __syncthreads();
}

// Two streams and what they share.
struct Scene {
  std::unique_ptr<Device> device = cuda_device(0);
  MemoryAccount account;
  Buffer first{account, MemoryKind::data, 4096, device->memory()};
  Buffer second{account, MemoryKind::data, 4096, device->memory()};
  Buffer host{account, MemoryKind::data, 4096, device->staging()};
  std::unique_ptr<Stream> stream = device->make_stream(StreamPriority::normal);
  std::unique_ptr<Stream> other = device->make_stream(StreamPriority::high);
  float* x = first.as<float>().data();
  float* y = second.as<float>().data();

  template <class... P>
  void run(Stream& on, dim3 grid, std::size_t shared, void (*kernel)(P...),
           std::type_identity_t<P>... arguments) {
    on.enqueue([&](NativeStream native) { launch(kernel, grid, 64, shared, native, arguments...); });
  }
  void synchronize() {
    stream->synchronize();
    other->synchronize();
  }
};

void two_streams(bool wait) {
  Scene s;
  for (int step = 0; step < 3; ++step) {
    s.stream->wait(s.other->record());
    s.run(*s.stream, 4, 0, write_numbers, s.x);
    if (wait) s.other->wait(s.stream->record());
    s.run(*s.other, 4, 0, double_numbers, s.y, s.x);
  }
  s.synchronize();
}

void two_streams_in_a_recording(bool wait) {
  Scene s;
  const auto recording = s.stream->capture([&] {
    const Event begin = s.stream->record();
    if (wait) s.run(*s.stream, 4, 0, write_numbers, s.x);
    s.other->wait(wait ? s.stream->record() : begin);
    s.run(*s.other, 4, 0, double_numbers, s.y, s.x);
    if (!wait) s.run(*s.stream, 4, 0, write_numbers, s.x);
    s.stream->wait(s.other->record());
  });
  for (int i = 0; i < 3; ++i) s.stream->replay(*recording);
  s.synchronize();
}

void read_by_the_host(bool wait) {
  Scene s;
  s.run(*s.stream, 4, 0, write_numbers, s.x);
  s.stream->copy(s.host.data(), s.x, 800);
  const Event copied = s.stream->record();
  if (wait) copied.wait();
  static_cast<void>(*static_cast<const volatile float*>(s.host.as<float>().data()));
  s.synchronize();
}

// The program ends as if all were well, unless something was found.
template <class Body>
void scene(const std::pair<const char*, const char*>& setting, Body body) {
  if (setting.first != nullptr) setenv(setting.first, setting.second, 1);
  body();
  std::exit(0);
}
const std::pair<const char*, const char*> as_it_is{nullptr, nullptr};

class Findings : public testing::Test {
 protected:
  // A forked process would have this one's streams without their threads.
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

#define EXPECT_SILENCE(...) EXPECT_EXIT(scene(as_it_is, [] { __VA_ARGS__; }), testing::ExitedWithCode(0), "")
#define EXPECT_FOUND(report, ...) EXPECT_DEATH(scene(as_it_is, [] { __VA_ARGS__; }), report)

std::string race(int line) { return "data race(.|\n)*findings_test.cpp:" + std::to_string(line); }

class Races : public Findings {
 protected:
  void SetUp() override {
#ifndef __SANITIZE_THREAD__
    GTEST_SKIP() << "needs ThreadSanitizer";
#endif
    Findings::SetUp();
  }
};

TEST_F(Races, a_missing_wait_between_streams_is_found_each_time_and_names_both_kernels_and_their_launches) {
  EXPECT_SILENCE(two_streams(true));
  const auto line = [](int number) {
    return "findings_test.cpp:" + std::to_string(number) + "(.|\n)*two_streams(.|\n)*";
  };
  const std::string both = line(read_line) + line(write_line) + "|" + line(write_line) + line(read_line);
  for (int i = 0; i < 3; ++i) EXPECT_FOUND(both, two_streams(false));
}

TEST_F(Races, a_missing_wait_is_found_when_only_the_streams_are_told_apart) {
  const std::pair<const char*, const char*> streams_only{"CUDA_ON_HOST_THREADS", "0"};
  EXPECT_EXIT(scene(streams_only, [] { two_streams(true); }), testing::ExitedWithCode(0), "");
  EXPECT_DEATH(scene(streams_only, [] { two_streams(false); }), race(read_line));
}

TEST_F(Races, a_missing_wait_is_found_in_a_recording) {
  EXPECT_SILENCE(two_streams_in_a_recording(true));
  EXPECT_FOUND(race(read_line), two_streams_in_a_recording(false));
}

TEST_F(Races, a_wait_that_the_environment_drops_is_missed) {
  const auto dropped = [](const char* which) { return std::pair{"CUDA_ON_HOST_DROP_WAIT", which}; };
  EXPECT_DEATH(scene(dropped("2"), [] { two_streams(true); }), race(read_line));
  EXPECT_DEATH(scene(dropped("3"), [] { two_streams(true); }), race(write_line));
}

TEST_F(Races, a_host_that_reads_too_early_is_found) {
  EXPECT_SILENCE(read_by_the_host(true));
  EXPECT_FOUND("data race(.|\n)*read_by_the_host", read_by_the_host(false));
}

TEST_F(Races, two_blocks_that_write_one_cell_are_found) {
  EXPECT_FOUND(race(every_block_line), Scene s; s.run(*s.stream, 2, 0, write_from_every_block, s.x);
               s.synchronize());
}

TEST_F(Races, a_missing_barrier_is_found) {
  EXPECT_SILENCE(Scene s; s.run(*s.stream, 1, 0, read_a_neighbour, s.x, true); s.synchronize());
  EXPECT_FOUND(race(neighbour_line), Scene s; s.run(*s.stream, 1, 0, read_a_neighbour, s.x, false);
               s.synchronize());
}

TEST_F(Findings, an_access_past_an_allocation_is_found) {
  EXPECT_SILENCE(Scene s; s.run(*s.stream, 1, 0, write_past_the_end, s.x, 0); s.synchronize());
  EXPECT_FOUND("access outside of an allocation|use-after-poison", Scene s;
               s.run(*s.stream, 1, 0, write_past_the_end, s.x, 1); s.synchronize());
}

TEST_F(Findings, an_access_inside_of_the_last_granule_is_found_when_the_memory_is_freed) {
  const auto overrun = [] {
    cudaSetDevice(0);
    void* data = nullptr;
    cudaMalloc(&data, 4096 - 16);
    cudaStream_t stream = nullptr;
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    launch(write_past_the_end, 1, 64, 0, stream, static_cast<float*>(data), 0);
    cudaFree(data);
  };
  EXPECT_DEATH(scene(as_it_is, overrun), "were overwritten|use-after-poison");
}

TEST_F(Findings, use_of_freed_memory_is_found) {
  EXPECT_FOUND("use of freed memory", Scene s; s.first = Buffer();
               s.run(*s.stream, 1, 0, write_from_every_block, s.x); s.synchronize());
}

TEST_F(Findings, a_host_that_touches_device_memory_is_found) {
  EXPECT_FOUND("the host touched device memory", Scene s; s.run(*s.stream, 4, 0, write_numbers, s.x);
               s.synchronize(); *static_cast<volatile float*>(s.x) = 1);
}

TEST_F(Findings, a_host_function_that_touches_device_memory_is_found) {
  EXPECT_FOUND("the host touched device memory", Scene s; cudaStream_t native = nullptr;
               s.stream->enqueue([&](NativeStream n) { native = static_cast<cudaStream_t>(n); });
               cudaLaunchHostFunc(
                   native, [](void* data) { *static_cast<volatile float*>(data) = 1; }, s.x);
               s.synchronize());
}

TEST_F(Findings, an_access_past_dynamic_shared_memory_is_found) {
  EXPECT_SILENCE(Scene s; s.run(*s.stream, 1, 256, write_past_shared_memory, s.x, 0); s.synchronize());
  EXPECT_FOUND("", Scene s; s.run(*s.stream, 1, 256, write_past_shared_memory, s.x, 1); s.synchronize());
}

TEST_F(Findings, a_block_whose_threads_wait_for_different_things_is_found) {
  EXPECT_FOUND("deadlock in block \\(0,0,0\\) of 64 threads: 32 wait for their warp, 32 at __syncthreads",
               Scene s;
               s.run(*s.stream, 1, 0, wait_in_half_a_warp, s.x); s.synchronize());
}

TEST_F(Findings, new_memory_is_nan) {
  float* data = nullptr;
  float value = 0;
  ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&data), 4), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(&value, data, 4, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_NE(value, value);
  EXPECT_EQ(cudaFree(data), cudaSuccess);
}

// What a user is told where there is no GPU.
std::string refusal() {
  try {
    cuda_device(0);
  } catch (const UserError& error) {
    return error.what();
  }
  return "none";
}

TEST_F(Findings, a_missing_driver_an_old_one_and_a_missing_gpu_are_told_apart) {
  const auto report = [] { std::fprintf(stderr, "%d GPUs: %s\n", cuda_device_count(), refusal().c_str()); };
  using testing::ExitedWithCode;
  EXPECT_EXIT(scene({"CUDA_ON_HOST_DRIVER", "0"}, report), ExitedWithCode(0), "0 GPUs: .*no NVIDIA driver");
  EXPECT_EXIT(scene({"CUDA_ON_HOST_DRIVER", "11040"}, report), ExitedWithCode(0),
              "0 GPUs: .*too old: it serves CUDA 11.4, this muster needs 1");
  EXPECT_EXIT(scene({"CUDA_ON_HOST_DEVICES", "0"}, report), ExitedWithCode(0), "0 GPUs: .*sees no GPU");
  EXPECT_EXIT(scene({"CUDA_ON_HOST_DEVICES", "3"}, report), ExitedWithCode(0), "3 GPUs: none");
}

TEST_F(Findings, a_kernel_that_fails_reaches_whoever_waits_for_its_stream) {
  const auto body = [] {
    Scene s;
    try {
      s.run(*s.stream, 1, 0, write_from_every_block, s.x);
      s.stream->record().wait();
    } catch (const Defect& defect) {
      std::fprintf(stderr, "told: %s\n", defect.what());
    }
  };
  EXPECT_EXIT(scene({"CUDA_ON_HOST_FAIL", "kernel"}, body), testing::ExitedWithCode(0),
              "told: .*cudaErrorLaunchFailure");
}

}  // namespace
}  // namespace muster
