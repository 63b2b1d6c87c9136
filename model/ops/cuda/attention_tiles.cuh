// Tiles of attention in shared memory, in f32, and their products.
//
// A block of 128 threads computes a tile of 16 R rows (queries, or keys in the gradient) against 32 columns
// (keys, or queries). The threads stand 16 x 8: a thread owns the rows R g + i and the columns 4 c + j of the
// scores, so that the elements of dropout that it needs are neighbours, and 4 of each 32 columns of a result.
// The eight threads of a row are in one warp: rows never leave it.
//
// Operands lie in rows of an odd number of float4 with row R g + i at place g + 16 i (a column at c + 8 j):
// the float4 that a warp reads at once fall into banks of their own. A multiply and add of two R x 4
// fragments costs (R + 4) / (4 R) reads of float4 for 4 FMA, which the FMA units hide from R = 2 on.
#pragma once

#include "model/ops/cuda/attention_problem.cuh"
#include "model/ops/cuda/attention_workspace.hpp"

namespace muster::cuda {

inline constexpr int tile_threads = 128, row_groups = 16, column_groups = 8;
inline constexpr int tile_columns = 4 * column_groups;
inline constexpr int score_width = tile_columns + 4;

// Floats of a row for heads of up to 32 * chunks.
template <int chunks>
inline constexpr int row_width = 32 * chunks + 4;

// Rows [first, first + count) of a head; zero outside of `valid` and behind the head's columns.
template <int count, int per_thread, int width, class T>
__device__ inline void load_tile(const HeadRows<const T>& from, int sample, int head, int head_size,
                                 int first, Range valid, float* to) {
  constexpr int columns = width - 4, groups = count / per_thread;
  const auto place = [&](int row) { return to + (row / per_thread + groups * (row % per_thread)) * width; };
  if (from.vectors) {
    constexpr int size = Vector<T>::size, vectors = columns / size;
    for (int i = static_cast<int>(threadIdx.x); i < count * vectors; i += tile_threads) {
      const int row = i / vectors, column = i % vectors * size;
      Vector<T> x{};
      if (valid.contains(first + row) && column < head_size)
        x = load_vector(from.at(sample, first + row, head * head_size + column));
      float* target = place(row) + column;
      MUSTER_UNROLL
      for (int e = 0; e < size; e += 4)
        *reinterpret_cast<float4*>(target + e) =
            make_float4(to_float(x[e]), to_float(x[e + 1]), to_float(x[e + 2]), to_float(x[e + 3]));
    }
  } else {
    for (int i = static_cast<int>(threadIdx.x); i < count * columns; i += tile_threads) {
      const int row = i / columns, column = i % columns;
      const bool there = valid.contains(first + row) && column < head_size;
      place(row)[column] = there ? to_float(*from.at(sample, first + row, head * head_size + column)) : 0.0f;
    }
  }
}

// The place of a thread in a tile.
struct Place {
  int row_group, column_group;
  __device__ Place()
      : row_group(static_cast<int>(threadIdx.x) / column_groups),
        column_group(static_cast<int>(threadIdx.x) % column_groups) {}
};

// scores[i][j] = row of a . column of b
template <int rows, int width>
__device__ inline void multiply_transposed(const Place& place, const float* a, const float* b, int depth,
                                           float (&scores)[rows][4]) {
  MUSTER_UNROLL
  for (int i = 0; i < rows; ++i) MUSTER_UNROLL
  for (int j = 0; j < 4; ++j) scores[i][j] = 0;
  a += place.row_group * width;
  b += place.column_group * width;
  for (int k = 0; k < depth; k += 4) {
    float4 left[rows], right[4];
    MUSTER_UNROLL
    for (int i = 0; i < rows; ++i) left[i] = *reinterpret_cast<const float4*>(a + i * row_groups * width + k);
    MUSTER_UNROLL
    for (int j = 0; j < 4; ++j)
      right[j] = *reinterpret_cast<const float4*>(b + j * column_groups * width + k);
    MUSTER_UNROLL
    for (int i = 0; i < rows; ++i) MUSTER_UNROLL
    for (int j = 0; j < 4; ++j) {
      scores[i][j] = fmaf(left[i].x, right[j].x, scores[i][j]);
      scores[i][j] = fmaf(left[i].y, right[j].y, scores[i][j]);
      scores[i][j] = fmaf(left[i].z, right[j].z, scores[i][j]);
      scores[i][j] = fmaf(left[i].w, right[j].w, scores[i][j]);
    }
  }
}

// sums[i][n][...] += (the tile of scores) b, by way of shared memory that only the rows' own warp touches.
template <int rows, int chunks>
__device__ inline void multiply_add(const Place& place, const float (&scores)[rows][4], float* shared_scores,
                                    const float* b, float (&sums)[rows][chunks][4]) {
  constexpr int width = row_width<chunks>;
  float* own = shared_scores + place.row_group * score_width;
  __syncwarp();  // the warp has read what stood there
  MUSTER_UNROLL
  for (int i = 0; i < rows; ++i)
    *reinterpret_cast<float4*>(own + i * row_groups * score_width + 4 * place.column_group) =
        make_float4(scores[i][0], scores[i][1], scores[i][2], scores[i][3]);
  __syncwarp();
  for (int c = 0; c < column_groups; ++c) {
    float left[rows][4];
    MUSTER_UNROLL
    for (int i = 0; i < rows; ++i) {
      const float4 four = *reinterpret_cast<const float4*>(own + i * row_groups * score_width + 4 * c);
      left[i][0] = four.x;
      left[i][1] = four.y;
      left[i][2] = four.z;
      left[i][3] = four.w;
    }
    MUSTER_UNROLL
    for (int j = 0; j < 4; ++j) MUSTER_UNROLL
    for (int n = 0; n < chunks; ++n) {
      const float4 right = *reinterpret_cast<const float4*>(b + (c + j * column_groups) * width + 32 * n +
                                                            4 * place.column_group);
      MUSTER_UNROLL
      for (int i = 0; i < rows; ++i) {
        sums[i][n][0] = fmaf(left[i][j], right.x, sums[i][n][0]);
        sums[i][n][1] = fmaf(left[i][j], right.y, sums[i][n][1]);
        sums[i][n][2] = fmaf(left[i][j], right.z, sums[i][n][2]);
        sums[i][n][3] = fmaf(left[i][j], right.w, sums[i][n][3]);
      }
    }
  }
}

// Calls body with a constant: the chunks of 32 columns that a head is padded to. bf16 comes here with heads that
// are too large for tensor cores.
template <class T, class Body>
void with_chunks(int head_size, Body&& body) {
  check(head_size <= largest_head, "head sizes are checked when workspaces are computed");
  if constexpr (sizeof(T) == 4) {
    if (head_size <= 64) return body(std::integral_constant<int, 2>{});
    if (head_size <= 96) return body(std::integral_constant<int, 3>{});
    if (head_size <= 128) return body(std::integral_constant<int, 4>{});
  }
  return body(std::integral_constant<int, 8>{});
}

}  // namespace muster::cuda
