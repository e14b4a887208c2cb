/* The public header is plain C99, and a failing call leaves a sentence. */
#include <stdio.h>
#include <string.h>

#include "tritkit.h"

int main(void) {
  tk_session* session = NULL;
  tk_error error;
  memset(&error, 0, sizeof error);
  if (strlen(tk_version()) < 5) return 1;
  if (tk_session_open("/nonexistent/net.onnx", NULL, &session, &error) != TK_IO_ERROR) return 2;
  if (session != NULL || strstr(error.message, "/nonexistent/net.onnx") == NULL) return 3;
  if (tk_session_open_memory("x", 1, NULL, &session, NULL) != TK_BAD_MODEL) return 4;
  if (tk_session_open(NULL, NULL, &session, &error) != TK_BAD_ARGUMENT) return 5;
  tk_session_close(NULL);
  if (tk_kernel_count() < 1) return 6;
  puts("ok");
  return 0;
}
