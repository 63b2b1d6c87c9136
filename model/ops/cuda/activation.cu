// GELU and SwiGLU, and their gradients. A thread computes 16 bytes of each tensor; with T bytes an element:
//   gelu             reads  T, writes  T an element, some 20 FLOPs
//   gelu_gradient    reads 2T, writes  T, some 30 FLOPs
//   gelu_erf         reads  T, writes  T, some 30 FLOPs
//   gelu_erf_gradient reads 2T, writes T, some 45 FLOPs
//   swiglu           reads 2T, writes  T an element of y, some 15 FLOPs
//   swiglu_gradient  reads 3T, writes 2T an element of dy, some 20 FLOPs
#include "model/ops/activation.hpp"
#include "model/ops/cuda/elementwise.cuh"
#include "model/ops/cuda/kernels.hpp"

namespace muster::cuda {
namespace {

constexpr float two_u =
    1.5957691216f;  // 2 sqrt(2 / pi): twice the tanh's argument is two_u (z + 0.044715 z^3)

// By (1 + tanh u) / 2 = sigmoid(2u), which loses no digits where tanh u is near -1.
template <class T>
struct GeluOf {
  __device__ float operator()(float z) const {
    return z * sigmoid<T>(z * fmaf(z * z, two_u * 0.044715f, two_u));
  }
};

template <class T>
struct GeluGradientOf {
  __device__ float operator()(float dy, float z) const {
    const float z2 = z * z;
    const float slope = fmaf(z2, 3 * two_u * 0.044715f, two_u);
    // 1 - s is e s; the bound keeps e finite where s vanishes anyway.
    const float e = exponential<T>(fminf(80.0f, -z * fmaf(z2, two_u * 0.044715f, two_u)));
    const float s = reciprocal<T>(1.0f + e);
    return dy * fmaf(z * slope, s * (e * s), s);
  }
};

// Phi(z); by erfc, so that nothing cancels where z is far below 0.
__device__ inline float normal_cdf(float z) { return 0.5f * erfcf(-0.70710678f * z); }

struct GeluErfOf {
  __device__ float operator()(float z) const { return z * normal_cdf(z); }
};

template <class T>
struct GeluErfGradientOf {
  __device__ float operator()(float dy, float z) const {
    return dy * fmaf(z, exponential<T>(-0.5f * z * z) * 0.39894228f, normal_cdf(z));
  }
};

// Item k is W elements of a row; gate and up stand in one row of 2 width columns.
template <int W, class T>
__global__ void __launch_bounds__(block_threads)
    swiglu_kernel(T* y, const T* gate_up, std::int64_t items, unsigned items_of_row) {
  const std::int64_t item = thread_of_grid();
  if (item >= items) return;
  const std::int64_t row = static_cast<unsigned>(item) / items_of_row, width = std::int64_t{items_of_row} * W;
  const T* gate = gate_up + row * width + item * W;
  const Floats<W> g = load_floats<W>(gate), u = load_floats<W>(gate + width);
  Floats<W> out;
  for (int i = 0; i < W; ++i) out[i] = g[i] * sigmoid<T>(g[i]) * u[i];
  store_floats(y + item * W, out);
}

template <int W, class T>
__global__ void __launch_bounds__(block_threads)
    swiglu_gradient_kernel(T* d_gate_up, const T* gradient, const T* gate_up, std::int64_t items,
                           unsigned items_of_row) {
  const std::int64_t item = thread_of_grid();
  if (item >= items) return;
  const std::int64_t row = static_cast<unsigned>(item) / items_of_row, width = std::int64_t{items_of_row} * W;
  const std::int64_t gate = row * width + item * W, up = gate + width;
  const Floats<W> dy = load_floats<W>(gradient + item * W);
  const Floats<W> g = load_floats<W>(gate_up + gate), u = load_floats<W>(gate_up + up);
  Floats<W> d_gate, d_up;
  for (int i = 0; i < W; ++i) {
    const float s = sigmoid<T>(g[i]);
    d_gate[i] = dy[i] * u[i] * s * fmaf(g[i], 1.0f - s, 1.0f);
    d_up[i] = dy[i] * g[i] * s;
  }
  store_floats(d_gate_up + gate, d_gate);
  store_floats(d_gate_up + up, d_up);
}

}  // namespace

void gelu(const Op&, const KernelArgs& args) {
  with_element_type(args.outputs[0].dtype(), [&](auto* like) {
    using T = std::remove_pointer_t<decltype(like)>;
    map(args.stream, GeluOf<T>{}, args.outputs[0].as<T>(), args.outputs[0].elements(),
        args.inputs[0].as<const T>());
  });
}

void gelu_gradient(const Op&, const KernelArgs& args) {
  with_element_type(args.outputs[0].dtype(), [&](auto* like) {
    using T = std::remove_pointer_t<decltype(like)>;
    map(args.stream, GeluGradientOf<T>{}, args.outputs[0].as<T>(), args.outputs[0].elements(),
        args.inputs[0].as<const T>(), args.inputs[1].as<const T>());
  });
}

void gelu_erf(const Op&, const KernelArgs& args) {
  with_element_type(args.outputs[0].dtype(), [&](auto* like) {
    using T = std::remove_pointer_t<decltype(like)>;
    map(args.stream, GeluErfOf{}, args.outputs[0].as<T>(), args.outputs[0].elements(),
        args.inputs[0].as<const T>());
  });
}

void gelu_erf_gradient(const Op&, const KernelArgs& args) {
  with_element_type(args.outputs[0].dtype(), [&](auto* like) {
    using T = std::remove_pointer_t<decltype(like)>;
    map(args.stream, GeluErfGradientOf<T>{}, args.outputs[0].as<T>(), args.outputs[0].elements(),
        args.inputs[0].as<const T>(), args.inputs[1].as<const T>());
  });
}

void swiglu(const Op&, const KernelArgs& args) {
  const std::int64_t width = args.outputs[0].columns(), count = args.outputs[0].elements();
  if (count == 0) return;
  with_element_type(args.outputs[0].dtype(), [&](auto* like) {
    using T = std::remove_pointer_t<decltype(like)>;
    T* y = args.outputs[0].as<T>();
    const T* gate_up = args.inputs[0].as<const T>();
    constexpr int vector = Vector<T>::size;
    with_width<vector>(width % vector == 0 && aligned(16, y, gate_up), [&](auto w) {
      launch(swiglu_kernel<w(), T>, blocks_for_items(count / w()), block_threads, 0, args.stream, y, gate_up,
             count / w(), static_cast<unsigned>(width / w()));
    });
  });
}

void swiglu_gradient(const Op&, const KernelArgs& args) {
  const std::int64_t width = args.inputs[0].columns(), count = args.inputs[0].elements();
  if (count == 0) return;
  with_element_type(args.outputs[0].dtype(), [&](auto* like) {
    using T = std::remove_pointer_t<decltype(like)>;
    T* d_gate_up = args.outputs[0].as<T>();
    const T *dy = args.inputs[0].as<const T>(), *gate_up = args.inputs[1].as<const T>();
    constexpr int vector = Vector<T>::size;
    with_width<vector>(width % vector == 0 && aligned(16, d_gate_up, dy, gate_up), [&](auto w) {
      launch(swiglu_gradient_kernel<w(), T>, blocks_for_items(count / w()), block_threads, 0, args.stream,
             d_gate_up, dy, gate_up, count / w(), static_cast<unsigned>(width / w()));
    });
  });
}

}  // namespace muster::cuda
