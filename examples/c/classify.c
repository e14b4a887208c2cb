/* Classifies images with a ternary network: C, libtritkit, nothing else.
 *
 *   cc -std=c11 -Wall -Werror -I csrc/include examples/c/classify.c -L DIR -ltritkit -o classify     (DIR holds libtritkit.so)
 *   ./classify net.onnx images.f32
 *
 * images.f32: float32 numbers, as many as the network's input has, for one image after the other, normalised as in training. From Python:
 * images.astype("<f4").tofile("images.f32"). Prints a line an image: the class, then the logits.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "tritkit.h"

static int fail(const char* message) {
  fprintf(stderr, "classify: %s\n", message);
  return 1;
}

/* The values of one image or of one row of logits; 0 if they are no sensible number. */
static size_t count(const tk_value_info* info) {
  size_t product = 1;
  for (int32_t i = 1; i < info->rank; ++i) {
    if (info->dims[i] < 1 || product > SIZE_MAX / sizeof(float) / (size_t)info->dims[i]) return 0;
    product *= (size_t)info->dims[i];
  }
  return product;
}

/* The tensor that `info` describes, for one image, in the caller's memory. */
static tk_tensor tensor_of(const tk_value_info* info, float* data) {
  tk_tensor tensor = {data, TK_FLOAT32, info->rank, {0}};
  for (int32_t i = 0; i < info->rank; ++i) tensor.dims[i] = info->dims[i];
  tensor.dims[0] = 1;
  return tensor;
}

static void print_row(const float* logits, size_t classes) {
  size_t best = 0;
  for (size_t k = 1; k < classes; ++k) {
    if (logits[k] > logits[best]) best = k;
  }
  printf("%zu", best);
  for (size_t k = 0; k < classes; ++k) printf(" %.9g", (double)logits[k]);
  printf("\n");
}

/* Runs every image of the file. The session needs no other memory than these two rows. */
static int classify(tk_session* session, FILE* file) {
  tk_error error;
  tk_value_info in, out;
  if (tk_session_input_count(session) != 1 || tk_session_output_count(session) != 1) return fail("the network must have one input and one output");
  if (tk_session_input(session, 0, &in, &error) || tk_session_output(session, 0, &out, &error)) return fail(error.message);
  const size_t pixels = count(&in), classes = count(&out);
  float* image = pixels ? malloc(pixels * sizeof(float)) : NULL;
  float* logits = classes ? malloc(classes * sizeof(float)) : NULL;
  int failed = image && logits ? 0 : fail("there is not enough memory");
  size_t read = 0;
  while (!failed && (read = fread(image, sizeof(float), pixels, file)) == pixels) {
    const tk_tensor input = tensor_of(&in, image), output = tensor_of(&out, logits);
    if (tk_session_run(session, &input, 1, &output, 1, &error)) {
      failed = fail(error.message);
    } else {
      print_row(logits, classes);
    }
  }
  if (!failed && (read != 0 || ferror(file))) failed = fail("the file ends inside an image");
  free(image);
  free(logits);
  return failed;
}

int main(int argc, char** argv) {
  if (argc != 3) return fail("usage: classify MODEL.onnx IMAGES.f32");
  FILE* file = fopen(argv[2], "rb");
  if (!file) return fail("the images cannot be opened");
  tk_error error;
  tk_session* session = NULL;
  int failed = tk_session_open(argv[1], NULL, &session, &error) ? fail(error.message) : classify(session, file);
  tk_session_close(session);
  fclose(file);
  return failed;
}
