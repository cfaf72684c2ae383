#include "sallyport/process/role.h"
int admin_main(int argc, char **argv) { (void)argc; (void)argv; return 2; }
